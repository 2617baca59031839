"""Progress of what takes long: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from projections.rebuild import Progress

EVERY_S = 2.0


@contextmanager
def shown() -> Iterator[Callable[[Progress], None]]:
    """On standard error, so that standard output stays for scripts."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("…", total=None, rate="")

        def show(progress: Progress) -> None:
            rate = f"{progress.rate:,.0f}/s" if progress.rate else ""
            bar.update(
                task, description=progress.phase, completed=progress.done, total=progress.total or None, rate=rate
            )

        yield show


class _Lines:
    """A line when a phase begins, and every other second."""

    def __init__(self) -> None:
        self._phase = ""
        self._said_at = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.phase == self._phase and now - self._said_at < EVERY_S:
            return
        self._phase, self._said_at = progress.phase, now
        counted = f" {progress.done:,} of {progress.total:,}, {progress.rate:,.0f}/s" if progress.total else ""
        left = f", {progress.eta:.0f} s left" if progress.eta is not None and progress.done else ""
        typer.echo(f"{progress.phase}{counted}{left}", err=True)
