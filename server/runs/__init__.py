"""Runs: one training of one commit in one track, handed from worker to worker under leases.

    queued ──claim──► running ──result──► finished
                        │ lease or deadline passes ──► queued, or quarantined after 3 attempts
                        └ release ──► queued (drain: the attempt is not counted)

A run ends once and fences only rise. Every change of hands is one UPDATE guarded by state and
fence; the unique indexes `uq_runs_one_live` and `uq_runs_one_first` hold even if a guard is
forgotten. Only the hub's clock counts.
"""

from server.runs.beats import Beat, list_beats
from server.runs.challenge import adopt, settle, settle_released
from server.runs.claim import CLAIM_COST, LeaseTerms, claim, expire, has_work, request
from server.runs.depth import read_depth
from server.runs.lease import FINISH_COST, Finished, finish, heartbeat, release
from server.runs.rows import get_log, get_run, list_runs

__all__ = [
    "CLAIM_COST",
    "FINISH_COST",
    "Beat",
    "Finished",
    "LeaseTerms",
    "adopt",
    "claim",
    "expire",
    "finish",
    "get_log",
    "get_run",
    "has_work",
    "heartbeat",
    "list_beats",
    "list_runs",
    "read_depth",
    "release",
    "request",
    "settle",
    "settle_released",
]
