"""Similar: the past experiments nearest to one that somebody is about to run, and their outcome.

Each commit is a document: the terms of its message, of the lines it changes and of what its
results say. They are indexed beside the requests, so a push never waits for it.
"""

from server.similar.find import find
from server.similar.fts import forget
from server.similar.index import Index

__all__ = ["Index", "find", "forget"]
