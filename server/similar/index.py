"""Index: reads commits and results into the full-text index, beside the requests.

A thread of one hub process does it little by little; a question first reads what is missing, as
far as that takes not too long, so a commit that was pushed a moment ago is found.
"""

import logging
import math
import threading
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, bindparam, func, select

from server import tables
from server.changes import read_changes
from server.db import Connection, Database, insert_into
from server.leader import Leader
from server.prepared import Prepared
from server.repo import BareRepo
from server.similar import fts
from server.similar.fts import COMMITS, Document
from server.similar.terms import MESSAGE_CHARS, read_change, read_words

log = logging.getLogger("agenthub")

#: How often the thread looks for something new.
_LOOK_SECONDS = 1.0
#: Between two batches.
_GAP_SECONDS = 0.01
#: Bounds of one write transaction, for which pushes and claims wait.
_BATCH_COMMITS = 25
_BATCH_TERMS = 5000
#: What a question waits for at most.
_ASKED_COMMITS = 64
_ASKED_SECONDS = 1.0
# A hub that stops waits this long for its thread.
_STOP_SECONDS = 2.0


class Index:
    """Of one hub process; the thread of the leading one reads, and each may for a question."""

    def __init__(self, db: Database, repo: BareRepo, leader: Leader) -> None:
        self._db = db
        self._repo = repo
        self._leader = leader
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.counts = fts.Counts()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """What it was reading, the next start reads again."""
        self._stopping.set()
        if self._thread:
            self._thread.join(_STOP_SECONDS)

    def catch_up(self) -> int:
        """Read what is new, within bounds; return how many commits are still to be read."""
        with self._db.read() as conn:
            if not count_unread(conn) and not fts.has_new_results(conn):
                return 0
        if self._turn.acquire(timeout=_ASKED_SECONDS):
            try:
                self._read_for_asker()
            finally:
                self._turn.release()
        with self._db.read() as conn:
            return count_unread(conn)

    def _read_for_asker(self) -> None:
        until = time.monotonic() + _ASKED_SECONDS
        left = _ASKED_COMMITS
        while left > 0 and (read := self._read_commits(left, until=until)):
            left -= read
        self._read_results()

    def document(self, conn: Connection, seq: int) -> Document:
        """Of a commit, whether it was read or not."""
        return fts.read(conn, [seq]).get(seq) or self._describe(_list_commits(conn, seq - 1, 1)[0])

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                while self._leader.is_me() and self._read_some():
                    # Whoever asks a question gets a turn.
                    self._stopping.wait(_GAP_SECONDS)
            except Exception:
                if not self._stopping.is_set():
                    log.exception("reading commits for `similar` failed and will be tried again")

    def _read_some(self) -> bool:
        """Read a batch of commits, or else of results; return whether there was any."""
        with self._turn:
            if self._stopping.is_set():
                return False
            read = self._read_commits(_BATCH_COMMITS, is_resting=True)
            return bool(read or self._read_results())

    def _read_commits(
        self, limit: int, *, until: float = math.inf, is_resting: bool = False
    ) -> int:
        """One batch; `is_resting` leaves half of the time to the requests."""
        with self._db.read() as conn:
            upto = fts.read_watermark(conn, COMMITS)
            rows = _list_commits(conn, upto, min(limit, _BATCH_COMMITS))
        documents: list[Document] = []
        terms = 0
        for row in rows:
            if terms > _BATCH_TERMS or time.monotonic() > until:
                break
            began = time.monotonic()
            documents.append(self._describe(row))
            if is_resting:
                self._stopping.wait(time.monotonic() - began)
            terms += len(documents[-1].diff)
        if documents:
            with self._db.write() as conn:
                fts.append(conn, documents)
                _note_changes(conn, documents)
        return len(documents)

    def _read_results(self) -> int:
        with self._db.read() as conn:
            if not fts.has_new_results(conn):
                return 0
        with self._db.write() as conn:
            return fts.append_results(conn)

    def _describe(self, row: Row[Any]) -> Document:
        """A root changes nothing, so it has its message only."""
        message = read_words(f"{row.message}\n{row.body}"[:MESSAGE_CHARS])
        diff = self._read_diff(row) if row.parent else ""
        return Document(row.seq, message, read_change(diff), changes=read_changes(diff))

    def _read_diff(self, row: Row[Any]) -> str:
        try:
            return self._repo.diff(row.parent, row.hash).decode(errors="replace")
        except Exception:
            # One commit that cannot be read must not keep all later ones out.
            log.exception("the diff of commit %s cannot be read", row.hash)
            return ""


def _note_changes(conn: Connection, documents: Sequence[Document]) -> None:
    """What each commit touches, for the analysis; another hub may have noted it."""
    rows = {
        (document.seq, change.kind): {
            "commit_seq": document.seq,
            "kind": change.kind,
            "before": change.before,
            "after": change.after,
        }
        for document in documents
        for change in document.changes
    }
    if rows:
        known = insert_into(conn.dialect.name, tables.changes).on_conflict_do_nothing()
        conn.execute(known, list(rows.values()))


def count_unread(conn: Connection) -> int:
    count: int = _UNREAD.scalar(conn, upto=fts.read_watermark(conn, COMMITS))
    return count


_UNREAD = Prepared(
    select(func.count()).select_from(tables.commits).where(tables.commits.c.seq > bindparam("upto"))
)


def _list_commits(conn: Connection, after: int, limit: int) -> list[Row[Any]]:
    """Oldest first, each with the hash of its first parent, None for a root."""
    c, p, parent = tables.commits, tables.commit_parents, tables.commits.alias("first_parent")
    query = (
        select(c.c.seq, c.c.hash, c.c.message, c.c.body, parent.c.hash.label("parent"))
        .outerjoin(p, (p.c.child == c.c.seq) & (p.c.position == 0))
        .outerjoin(parent, parent.c.seq == p.c.parent)
        .where(c.c.seq > after)
        .order_by(c.c.seq)
        .limit(limit)
    )
    return list(conn.execute(query))
