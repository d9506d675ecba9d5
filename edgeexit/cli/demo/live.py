"""What the terminal shows while the demo runs, from the records as the device writes them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edgeexit.decide.answer import Answer, Drop, OffloadRecord, Place
from edgeexit.device.records import LogRecord, decode_record

# As many rows as a small terminal holds besides the totals.
ROWS = 10


class Tail:
    """The records of a file as it grows; half a line waits for its other half."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def fresh(self) -> Iterator[LogRecord]:
        """The records that came since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._offset += len(line)
                    yield decode_record(line)
        except FileNotFoundError:
            return


class Tally:
    """Running totals, and the newest answers."""

    def __init__(self) -> None:
        self.answered = 0
        self.late = 0
        self.dropped: Counter[str] = Counter()
        self.places: Counter[tuple[int, Place]] = Counter()
        self.offloads: Counter[str] = Counter()
        self.newest: deque[Answer] = deque(maxlen=ROWS)

    def take(self, record: LogRecord) -> None:
        """Count one record."""
        if isinstance(record, Answer):
            self.answered += 1
            self.late += not record.on_time
            self.places[record.exit, record.place] += 1
            self.newest.append(record)
        elif isinstance(record, Drop):
            self.dropped[record.reason] += 1
        elif isinstance(record, OffloadRecord):
            self.offloads[record.outcome.value] += 1


class Screen:
    """A live table on a terminal; elsewhere a plain line a second."""

    def __init__(self, console: Console, title: str, seconds: float) -> None:
        self._console = console
        self._title = title
        self._seconds = seconds
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._next_line_s = 0.0

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._console.print(self._title, highlight=False, soft_wrap=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, tally: Tally, elapsed_s: float, events: str) -> None:
        """Show how things stand."""
        if self._console.is_terminal:
            self._live.update(self._table(tally, elapsed_s, events))
        elif elapsed_s >= self._next_line_s:
            self._next_line_s = elapsed_s + 1.0
            self._console.print(self._line(tally, elapsed_s, events), highlight=False, soft_wrap=True)

    def _line(self, tally: Tally, elapsed_s: float, events: str) -> str:
        last = tally.newest[-1] if tally.newest else None
        seen = (
            ""
            if last is None
            else f"  budget {last.deadline_ms:.0f} ms  exit {last.exit} on {last.place.value} "
            f"({last.reason}, score {last.score:.2f})  took {last.latency_ms:.0f} ms"
        )
        return (
            f"{elapsed_s:5.1f} s  link {_link(last)}  answered {tally.answered}  late {tally.late}  "
            f"dropped {tally.dropped.total()}{seen}{'  ' + events if events else ''}"
        )

    def _table(self, tally: Tally, elapsed_s: float, events: str) -> RenderableType:
        rows = Table(title=self._title)
        for name in ("frame", "budget ms", "took ms", "exit", "where", "score", "why", "link"):
            rows.add_column(name, justify="left" if name in ("where", "why", "link") else "right")
        for answer in tally.newest:
            style = "" if answer.on_time else "bold red"
            rows.add_row(
                str(answer.frame),
                f"{answer.deadline_ms:.0f}",
                f"{answer.latency_ms:.0f}",
                str(answer.exit),
                answer.place.value,
                f"{answer.score:.2f}",
                answer.reason,
                _link(answer),
                style=style,
            )
        places = ", ".join(
            f"exit {exit_} on {place.value} {count}" for (exit_, place), count in sorted(tally.places.items())
        )
        offloads = ", ".join(f"{outcome} {count}" for outcome, count in sorted(tally.offloads.items()))
        totals = Text(
            f"answered {tally.answered}   late {tally.late}   dropped {tally.dropped.total()}\n"
            f"answers: {places}\noffloads: {offloads}\n{events}"
        )
        bar = ProgressBar(total=self._seconds, completed=min(elapsed_s, self._seconds), width=60)
        return Group(rows, totals, bar)


def _link(answer: Answer | None) -> str:
    if answer is None or answer.link_up is None:
        return "–"
    return "up" if answer.link_up else "down"
