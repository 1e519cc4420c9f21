"""Exits: how a worker's process ends, and what a supervisor of processes should make of it."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of `ah-worker run`; all others, and death by a signal, mean restart me."""

    #: Drained, idle for long enough, or all runs done that were asked for.
    DONE = 0
    #: Three faults of this machine in a row. Do not restart: a human should look.
    QUARANTINED = 1
    #: It cannot work as it was told to, and says why. Do not restart.
    REFUSED = 2
    #: Something failed that may be mended next time (EX_TEMPFAIL). Restart.
    RESTART = 75
