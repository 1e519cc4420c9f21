"""What the calls are asked about: commits, posts and runs of a filled directory, at random."""

import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.hub import dag

#: Keys of calls that should not find their answers kept.
KEYS = 20_000


@dataclass(frozen=True, slots=True)
class Sample:
    #: The whole line, oldest first.
    line: list[str]
    #: Of the swarm, at random.
    commits: list[str]
    newest: str
    #: The commit of the longest lineage.
    deepest: str
    posts: list[int]
    runs: list[int]
    last_seq: int
    last_result: int
    last_event: int
    last_post: int


def read(data: Path, seed: int = 1) -> Sample:
    chance = random.Random(seed)
    with closing(sqlite3.connect(data / "hub.db")) as file:

        def ask(query: str) -> list[int]:
            return [row[0] for row in file.execute(query)]

        def hashes(where: str) -> list[str]:
            return [row[0] for row in file.execute(f"SELECT hash FROM commits WHERE {where}")]

        newest = ask("SELECT max(seq) FROM commits")[0]
        seqs = range(dag.LINE + 1, newest + 1)
        picked = chance.sample(seqs, min(KEYS, len(seqs)))
        commits = hashes(f"seq IN ({', '.join(map(str, picked))})")
        last_post = ask("SELECT max(id) FROM posts")[0]
        last_run = ask("SELECT max(run_id) FROM results")[0]
        return Sample(
            line=hashes(f"seq <= {dag.LINE} ORDER BY seq"),
            commits=chance.sample(commits, len(commits)),
            newest=hashes(f"seq = {newest}")[0],
            deepest=hashes("1 ORDER BY generation DESC, seq LIMIT 1")[0],
            posts=chance.sample(range(1, last_post + 1), min(KEYS, last_post)),
            runs=chance.sample(range(1, last_run + 1), min(KEYS, last_run)),
            last_seq=newest,
            last_result=ask("SELECT max(id) FROM results")[0],
            last_event=ask("SELECT max(id) FROM events")[0],
            last_post=last_post,
        )
