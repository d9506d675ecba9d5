"""Progress for commands that take a while: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# Often enough to see that something moves, seldom enough for a log.
LINE_EVERY_S = 2.0


class Bar:
    """How far something is, on standard error; `show` takes how many of `total` parts are done."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._console = Console(stderr=True)
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task(what, total=total)
        self._last_s = time.monotonic()

    def __enter__(self) -> Bar:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def show(self, done: int, total: int | None = None) -> None:
        """Show that so many parts are done."""
        total = self._total if total is None else total
        if self._console.is_terminal:
            self._progress.update(self._task, completed=done, total=total)
            return
        now_s = time.monotonic()
        if now_s - self._last_s >= LINE_EVERY_S or done == total:
            self._last_s = now_s
            typer.echo(f"{self._what} {done:,} of {total:,}", err=True)
