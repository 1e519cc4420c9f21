"""A simulated swarm on a real hub; see `__main__`."""

import random
from collections.abc import Callable
from pathlib import Path

from bench.swarm.audit import Report, audit
from bench.swarm.play import Clock, Play, Size
from bench.swarm.world import World
from server.app import create_app
from server.settings import Settings

__all__ = ["Report", "Size", "play_swarm"]

_ADMIN_KEY = "the-admin-key-of-the-bench"


def play_swarm(
    size: Size, seed: int, folder: Path, show: Callable[[int, int], None] | None = None
) -> Report:
    """Play one swarm on a fresh hub in `folder`, and audit it."""
    clock, data = Clock(), folder / "data"
    data.mkdir()
    settings = Settings(
        data, _ADMIN_KEY, max_pushes_per_hour=0, max_posts_per_hour=0, max_registrations_per_hour=0
    )
    play = Play(
        create_app(settings, clock), clock, size, World(random.Random(seed)), folder, _ADMIN_KEY
    )
    if show is not None:
        play.show = show
    return play.run(audit)
