"""Keys: who calls, by the API key; from memory while no agent changed."""

import threading
from collections import OrderedDict

from server import agents, errors
from server.db import Connection, Database
from server.topics import Topic, Topics, Versions

#: Agents kept, those asked for last; some 500 bytes each.
KEPT = 20_000


class Keys:
    """Answers from memory, coherent with every process that registers, disables or re-keys.

    Under the key's digest, as in the database: memory holds no keys either. Of a key that is not
    good nothing is kept.
    """

    def __init__(self, db: Database, topics: Topics, admin_key: str) -> None:
        self._db = db
        self._topics = topics
        self._admin_key = admin_key
        self._lock = threading.Lock()
        self._version: int | None = None
        self._agents: OrderedDict[str, agents.Agent] = OrderedDict()

    def identify(self, key: str) -> agents.Agent:
        """The agent that holds the key; raise Unauthorized, or Forbidden if it is disabled.

        Its `last_seen_at` may be old.
        """
        versions = self._topics.read()
        agent = self.find(key, versions)
        if agent is not None:
            return agent
        with self._db.read() as conn:
            return self.load(conn, key, versions)

    def find(self, key: str, versions: Versions) -> agents.Agent | None:
        """The agent if it is in memory and `versions` are still the ones it was read under."""
        digest = agents.digest(key)
        with self._lock:
            if self._version != versions[Topic.AGENTS]:
                self._agents.clear()
                self._version = versions[Topic.AGENTS]
            agent = self._agents.get(digest)
            if agent is not None:
                self._agents.move_to_end(digest)
            return agent

    def load(self, conn: Connection, key: str, versions: Versions) -> agents.Agent:
        """From the database, which was not looked into before the versions were read."""
        if agents.is_same_key(key, self._admin_key):
            raise errors.Unauthorized(
                "this is the admin key, not an agent's", "register an agent with it: `ah join`"
            )
        agent = agents.authenticate(conn, key)
        with self._lock:
            # Read after the version was: it is as new, or newer and about to be read again.
            if self._version == versions[Topic.AGENTS]:
                self._agents[agents.digest(key)] = agent
                if len(self._agents) > KEPT:
                    self._agents.popitem(last=False)
        return agent
