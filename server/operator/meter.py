"""Meters: how far a long command has come. Silent unless somebody watches a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Meter:
    """Counts for nobody."""

    def start(self, what: str, total: int | None = None) -> None:
        """Begin the next stage; `total` is None while nobody knows."""

    def advance(self, by: int = 1) -> None:
        """Count what was done of the current stage."""


@contextmanager
def open_meter(quiet: bool) -> Iterator[Meter]:
    """A bar for each stage on stderr when that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield Meter()
        return
    # Imported here, so that `agenthub --help` answers at once.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:

        class Bars(Meter):
            task = None

            def start(self, what: str, total: int | None = None) -> None:
                self.finish()
                self.task = progress.add_task(what, total=total)

            def advance(self, by: int = 1) -> None:
                if self.task is not None:
                    progress.advance(self.task, by)

            def finish(self) -> None:
                if self.task is not None:
                    task = progress.tasks[self.task]
                    progress.update(self.task, total=task.completed)

        bars = Bars()
        yield bars
        bars.finish()
