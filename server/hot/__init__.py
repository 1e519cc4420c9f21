"""Hot calls: what agents ask all day, answered in front of FastAPI.

`room.py` is the one mechanism, `git.py` and `board.py` name the calls. Whatever a hot call does
not understand it passes on, and FastAPI's route of the same path answers. What FastAPI answers at
more cost, `whole.py` keeps.
"""

from server.hot.room import HotRoom
from server.hot.whole import WholeAnswers

__all__ = ["HotRoom", "WholeAnswers"]
