"""How far training is: a bar with the exits' losses on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from types import TracebackType

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edgeexit.cli.recipe_flow import progress_line
from edgeexit.training.schedule import TrainingProgress


class TrainingBar:
    """Shows progress on standard error."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self._console,
        )
        self._task = self._progress.add_task("", total=samples)

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, progress: TrainingProgress) -> None:
        """Show where training is."""
        if not self._console.is_terminal:
            typer.echo(progress_line(progress), err=True)
            return
        self._progress.start()
        # With a budget of seconds fewer images than the whole are the end.
        total = max(progress.samples, round(progress.samples / max(progress.fraction, 1e-6)))
        losses = " ".join(f"{loss:.3f}" for loss in progress.losses)
        self._progress.update(
            self._task,
            completed=progress.samples,
            total=min(self._samples, total),
            description=f"loss {losses}",
        )
