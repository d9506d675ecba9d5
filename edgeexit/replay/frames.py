"""Frames of a run as one kind of row, whether they were recorded on a device or replayed.

Reports and comparisons read rows, so that a real run and its replays are counted by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

import numpy as np

from edgeexit.decide.answer import Answer, Drop, Fate, OffloadOutcome, OffloadRecord, Place, Record
from edgeexit.replay.outcome import FATE_OF_NUMBER, OffloadCount, Outcome


@dataclass(frozen=True, slots=True)
class FrameRow:
    """One frame.

    Units: captured_ms; latency_ms, capture to answer, None where there was none; deadline_ms, the
    budget in force at the answer, None where unknown; worth, of the answer whenever it came, None
    where the truth is unknown. `fate` is None without an answer, and where it is unknown why it is late.
    """

    captured_ms: float
    latency_ms: float | None
    deadline_ms: float | None
    worth: float | None
    exit: int | None
    place: Place | None
    uplink_bytes: int = 0
    dropped: str | None = None
    decision_us: tuple[float, ...] = ()
    fate: Fate | None = None

    @property
    def on_time(self) -> bool:
        """Whether it was answered by its deadline."""
        latency_ms, deadline_ms = self.latency_ms, self.deadline_ms
        return latency_ms is not None and deadline_ms is not None and latency_ms <= deadline_ms


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Units: ms."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class RunFigures:
    """The figures of a run.

    `dropped` counts frames by reason, `answers` by place and exit, `late_by` late answers by their fate
    as far as it is known. Fractions are of all frames;
    correct_by_deadline_fraction counts only frames whose truth is known, and is None without any.
    Units: uplink_bytes, of all frames' payloads and of what took them back; latency_ms, capture to answer;
    decision_us_p50, one decision, None where it was not measured.
    """

    frames: int
    answered: int
    dropped: Mapping[str, int]
    late: int
    on_time_fraction: float
    correct_by_deadline_fraction: float | None
    answers: Mapping[str, Mapping[str, int]]
    offloads: OffloadCount
    uplink_bytes: int
    latency_ms: Percentiles | None
    decision_us_p50: float | None
    late_by: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunRows:
    """All frames of one run in order of capture, and how its offloads ended.

    Units: later_bytes, what was sent for frames after their answer counted its bytes, less what never left.
    """

    name: str
    rows: tuple[FrameRow, ...]
    offloads: OffloadCount = field(default_factory=OffloadCount)
    later_bytes: int = 0


def rows_of_records(name: str, records: Iterable[Record], truth: Mapping[str, float]) -> RunRows:
    """Rows of what a device wrote. `truth` is the class number or value by source; others are unknown."""
    rows: list[FrameRow] = []
    count = OffloadCount()
    later_bytes = 0
    for record in records:
        if isinstance(record, Answer):
            rows.append(_answered(record, truth.get(record.source)))
        elif isinstance(record, Drop):
            rows.append(FrameRow(record.captured_ms, None, None, None, None, None, dropped=record.reason))
        elif isinstance(record, OffloadRecord):
            count.sent += 1
            later_bytes += record.later_bytes
            if record.outcome is OffloadOutcome.USED:
                count.used += 1
            elif record.outcome is OffloadOutcome.UNUSED:
                count.unused += 1
            elif record.outcome is OffloadOutcome.LATE:
                count.late += 1
            elif record.outcome is OffloadOutcome.CANCELLED:
                count.cancelled += 1
            else:
                count.failed += 1
    rows.sort(key=lambda row: row.captured_ms)
    return RunRows(name, tuple(rows), count, later_bytes)


def rows_of_outcome(outcome: Outcome) -> RunRows:
    """Rows of a replayed run; a frame counts as late where its answer did not count."""
    rows: list[FrameRow] = []
    for frame, captured_ms in enumerate(outcome.captured_ms.tolist()):
        emitted_ms = float(outcome.emitted_ms[frame])
        if isnan(emitted_ms):
            rows.append(FrameRow(captured_ms, None, None, None, None, None, dropped="replaced"))
            continue
        latency_ms = emitted_ms - captured_ms
        deadline_ms = float(outcome.deadline_ms[frame])
        if not outcome.on_time[frame]:
            deadline_ms = min(deadline_ms, float(outcome.expiry_ms[frame]) - captured_ms)
        rows.append(
            FrameRow(
                captured_ms=captured_ms,
                latency_ms=latency_ms,
                deadline_ms=max(deadline_ms, latency_ms) if outcome.on_time[frame] else deadline_ms,
                worth=float(outcome.quality[frame]),
                exit=int(outcome.exits[frame]),
                place=Place.GATEWAY if outcome.remote[frame] else Place.DEVICE,
                uplink_bytes=int(outcome.uplink_bytes[frame]),
                fate=FATE_OF_NUMBER.get(int(outcome.fates[frame])),
            )
        )
    return RunRows(outcome.policy, tuple(rows), outcome.offloads)


def figures(run: RunRows) -> RunFigures:
    """Count a run."""
    rows = run.rows
    answered = [row for row in rows if row.latency_ms is not None]
    dropped: dict[str, int] = {}
    late_by = {fate.value: 0 for fate in Fate if fate is not Fate.ON_TIME}
    answers: dict[str, dict[str, int]] = {place.value: {} for place in Place}
    for row in rows:
        if row.dropped is not None:
            dropped[row.dropped] = dropped.get(row.dropped, 0) + 1
        elif row.place is not None:
            by_exit = answers[row.place.value]
            by_exit[str(row.exit)] = by_exit.get(str(row.exit), 0) + 1
        if row.fate is not None and row.fate is not Fate.ON_TIME:
            late_by[row.fate.value] += 1
    on_time = sum(row.on_time for row in answered)
    latency_ms = [row.latency_ms for row in answered if row.latency_ms is not None]
    decision_us = [each for row in answered for each in row.decision_us]
    return RunFigures(
        frames=len(rows),
        answered=len(answered),
        dropped=dropped,
        late=len(answered) - on_time,
        on_time_fraction=on_time / len(rows) if rows else 0.0,
        correct_by_deadline_fraction=correct_by_deadline(rows),
        answers={place: dict(sorted(by_exit.items())) for place, by_exit in answers.items()},
        offloads=run.offloads,
        uplink_bytes=sum(row.uplink_bytes for row in rows) + run.later_bytes,
        latency_ms=_percentiles(latency_ms),
        decision_us_p50=float(np.median(decision_us)) if decision_us else None,
        late_by=late_by,
    )


def correct_by_deadline(rows: Sequence[FrameRow]) -> float | None:
    """Mean worth by the deadline over frames that were dropped, or whose truth is known."""
    counted = [row for row in rows if row.worth is not None or row.dropped is not None]
    if all(row.worth is None for row in counted):
        return None
    return sum(row.worth for row in counted if row.worth is not None and row.on_time) / len(counted)


def _answered(answer: Answer, truth: float | None) -> FrameRow:
    worth: float | None = None
    if truth is not None and answer.label is not None:
        worth = float(answer.label == truth)
    return FrameRow(
        captured_ms=answer.captured_ms,
        latency_ms=answer.latency_ms,
        deadline_ms=answer.deadline_ms,
        worth=worth,
        exit=answer.exit,
        place=answer.place,
        uplink_bytes=answer.uplink_bytes,
        decision_us=answer.decision_us,
        fate=answer.fate,
    )


def _percentiles(values: Sequence[float]) -> Percentiles | None:
    if not values:
        return None
    p50, p95, p99 = (float(value) for value in np.percentile(values, [50, 95, 99]))
    return Percentiles(p50, p95, p99)
