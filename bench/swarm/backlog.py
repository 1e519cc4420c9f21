"""What waits for a first run, told from outside, and what share of the runs each agent is due.

While several agents have work waiting in a track, each run that goes to one of them is due to all
of them in equal parts. The sum of an agent's parts is its due; what it got of those is `served`.
"""

from collections import Counter
from dataclasses import dataclass, field

from bench.swarm.world import Commit


@dataclass
class Backlog:
    """One track: the commits whose code waits for its first run in it, by their agents."""

    #: By the number of their codes.
    waiting: dict[int, Commit] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    due: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    #: For how many of the track's shared runs each agent had something waiting.
    present: Counter[str] = field(default_factory=Counter)
    shared: int = 0
    #: Codes that were leased before: a child does not take them back any more.
    _returned: set[int] = field(default_factory=set)
    _parties: dict[int, tuple[Commit, set[str]]] = field(default_factory=dict)

    def push(self, leaf: Commit) -> None:
        if leaf.code.number not in self.seen:
            self.seen.add(leaf.code.number)
            self.waiting[leaf.code.number] = leaf

    def cover(self, commit: Commit, is_wanted_elsewhere: bool) -> None:
        """Its own agent built on it, so it waits no more, unless another one has the same code."""
        held = self.waiting.get(commit.code.number)
        if held is None or commit.code.number in self._returned:
            return
        if held.hash == commit.hash and not is_wanted_elsewhere:
            del self.waiting[commit.code.number]
            # Nothing of it was trained, so the same code may come again.
            self.seen.discard(commit.code.number)

    def lease(self, commit: Commit) -> bool:
        """A first run begins; False if nothing of the kind should have waited."""
        held = self.waiting.get(commit.code.number)
        if held is None:
            return False
        agents = {leaf.agent for leaf in self.waiting.values()}
        self.shared += 1
        for agent in agents:
            self.due[agent] += 1 / len(agents)
            self.present[agent] += 1
        self.served[held.agent] += 1
        del self.waiting[commit.code.number]
        self._parties[commit.code.number] = held, agents
        return True

    def void(self, commit: Commit) -> None:
        """The run goes back to the queue, as if it had not been leased."""
        held, agents = self._parties.pop(commit.code.number)
        self.shared -= 1
        for agent in agents:
            self.due[agent] -= 1 / len(agents)
            self.present[agent] -= 1
        self.served[held.agent] -= 1
        self.waiting[commit.code.number] = held
        self._returned.add(commit.code.number)

    def count(self, agent: str) -> int:
        return sum(leaf.agent == agent for leaf in self.waiting.values())
