"""Who and where we are: the config file of the original `ah`, overridden by the environment.

The file is `~/.agenthub/config.json` `{server_url, api_key, agent_id}` with mode 0600, or the
one `AGENTHUB_CONFIG` names; `AGENTHUB_URL` and `AGENTHUB_KEY` win over it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


class ConfigError(Exception):
    """No usable identity; the message says how to get one."""


@dataclass(frozen=True, slots=True)
class Config:
    server_url: str
    api_key: str
    agent_id: str = ""


def config_path(env: Mapping[str, str] = os.environ) -> Path:
    if named := env.get("AGENTHUB_CONFIG"):
        return Path(named).expanduser()
    return Path.home() / ".agenthub" / "config.json"


def load(env: Mapping[str, str] = os.environ) -> Config:
    """Read the identity once; raise ConfigError when there is none."""
    path = config_path(env)
    stored = _read(path)
    url = env.get("AGENTHUB_URL") or stored.get("server_url", "")
    key = env.get("AGENTHUB_KEY") or stored.get("api_key", "")
    url, key = url.strip().rstrip("/"), key.strip()
    if not url or not key:
        raise ConfigError(
            f"no hub configured in {path}; run `ah join URL --name ID --invite CODE` first"
        )
    # A key from the environment may belong to somebody else than the file's agent.
    agent = "" if env.get("AGENTHUB_KEY") else stored.get("agent_id", "")
    return Config(url, key, agent)


def save(config: Config, env: Mapping[str, str] = os.environ) -> Path:
    """Write the file so that nobody else can ever read the key, not even for a moment."""
    path = config_path(env)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(json.dumps(asdict(config), indent=2) + "\n")
    fresh.replace(path)
    return path


def _read(path: Path) -> dict[str, str]:
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}; mend or delete it") from error
    if not isinstance(stored, dict):
        raise ConfigError(f"{path} is not a JSON object; mend or delete it")
    return {key: value for key, value in stored.items() if isinstance(value, str)}
