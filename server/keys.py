"""Keys: who calls, by the API key; from memory while no agent changed."""

from server import agents, errors
from server.db import Connection, Database
from server.kept import Shelf
from server.topics import Topic, Topics, Versions

#: What an agent takes in memory, about.
_AGENT_BYTES = 500


class Keys:
    """Answers from memory, coherent with every process that registers, disables or re-keys.

    Under the key's digest, as in the database: memory holds no keys either. Of a key that is not
    good nothing is kept.
    """

    def __init__(self, db: Database, topics: Topics, admin_key: str) -> None:
        self._db = db
        self._topics = topics
        self._admin_key = admin_key
        #: By the key's digest, each with the version it was read under, or an older one.
        self._agents: Shelf[str, tuple[int, agents.Agent]] = Shelf(lambda _: _AGENT_BYTES)

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
        found = self._agents.get(agents.digest(key))
        return found[1] if found is not None and found[0] == versions[Topic.AGENTS] else None

    def load(self, conn: Connection, key: str, versions: Versions) -> agents.Agent:
        """From the database, which was not looked into before the versions were read."""
        if agents.is_same_key(key, self._admin_key):
            raise errors.Unauthorized(
                "this is the admin key, not an agent's", "register an agent with it: `ah join`"
            )
        agent = agents.authenticate(conn, key)
        # Read after the version was: it is as new, or newer and about to be read again.
        self._agents.put(agents.digest(key), (versions[Topic.AGENTS], agent))
        return agent
