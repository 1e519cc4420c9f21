"""Kept: what was made once and may be asked for again, up to a number of bytes of the process.

One number says how much memory all of it takes. Results lie on shelves, each with keys of its own,
and whatever was not asked for longest goes first, from whichever shelf. They are weighed, not
counted: one may be a thousand times as large as another, and strangers choose which are made.
"""

import functools
import itertools
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Key = TypeVar("Key", bound=Hashable)

#: Of all that a process keeps.
LIMIT_BYTES = 17 * 2**20
#: What the room itself takes for each result: its places in the order and on the shelf.
_PLACE_BYTES = 300


class Room:
    """Bounded memory; safe to share between threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._lock = threading.Lock()
        #: By shelf and key; that not asked for longest comes first.
        self._results: OrderedDict[tuple[int, Hashable], tuple[Any, int]] = OrderedDict()

    def get(self, place: tuple[int, Hashable]) -> Any:
        with self._lock:
            found = self._results.get(place)
            if found is None:
                return None
            self._results.move_to_end(place)
            return found[0]

    def put(self, place: tuple[int, Hashable], result: Any, weight: int) -> None:
        """Two thirds of the room are the most that one result may have, as it drives out others."""
        weight += _PLACE_BYTES
        with self._lock:
            self._drop(place)
            if weight > self.limit * 2 // 3:
                return
            self._results[place] = result, weight
            self.bytes += weight
            while self.bytes > self.limit:
                self._drop(next(iter(self._results)))

    def _drop(self, place: tuple[int, Hashable]) -> None:
        found = self._results.pop(place, None)
        if found is not None:
            self.bytes -= found[1]


ROOM = Room(LIMIT_BYTES)

_NUMBERS = itertools.count()


class Shelf(Generic[Key, R]):
    """Results of one kind by their keys; `weigh` estimates the bytes that one of them takes.

    Texts in a key are counted besides. None is not kept.
    """

    def __init__(self, weigh: Callable[[R], int], room: Room = ROOM) -> None:
        self._weigh = weigh
        self._room = room
        self._number = next(_NUMBERS)

    def get(self, key: Key) -> R | None:
        found: R | None = self._room.get((self._number, key))
        return found

    def put(self, key: Key, result: R) -> None:
        """In place of what was there; nothing is there afterwards if it is too large."""
        self._room.put((self._number, key), result, self._weigh(result) + _weigh_key(key))


def _weigh_key(key: Hashable) -> int:
    parts = key if isinstance(key, tuple) else (key,)
    return sum(sys.getsizeof(part) for part in parts if isinstance(part, (str, bytes)))


def kept(
    weigh: Callable[[Any], int], room: Room = ROOM
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep a function's results by its arguments, on a shelf of its own."""

    def decorate(make: Callable[P, R]) -> Callable[P, R]:
        shelf: Shelf[Hashable, R] = Shelf(weigh, room)

        @functools.wraps(make)
        def get(*args: P.args, **named: P.kwargs) -> R:
            key = (*args, *sorted(named.items()))
            found = shelf.get(key)
            if found is None:
                found = make(*args, **named)
                shelf.put(key, found)
            return found

        return get

    return decorate
