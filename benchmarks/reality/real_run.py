"""One run for real: the daemon in its namespace, over the shaped link, with what goes wrong on the way."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reality.house import House
from benchmarks.reality.noting import FrameNotes, by_frame, read_notes
from benchmarks.reality.plan import DeviceSettings, Plan, write_config
from benchmarks.reality.shaper import Stats
from benchmarks.reality.shaping import Shape
from edgeexit.cli.demo.live import Tail
from edgeexit.cli.demo.programs import Program
from edgeexit.decide.answer import Answer, Drop, OffloadRecord, Record
from edgeexit.device.records import LogRecord, RunStarted, read_records
from edgeexit.errors import DataError

# Starting Python and the runtime, connecting, and hearing of a gateway; on a loaded machine.
START_S = 60.0
# How often the run is looked at: what goes wrong on the way happens at most this late, and its real time
# is what the replay is given.
LOOK_S = 0.05
# A daemon that has just started meets cold caches and learns its board: both sides run these frames, neither
# counts them.
SETTLE_S = 3.0
# A line of progress this often.
SAY_S = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was done to the link or the board. Units: at_ms, monotonic, when it had been done."""

    what: str
    at_ms: float


@dataclass(frozen=True, slots=True)
class RealRun:
    """What a run left behind.

    `records` are of the frames captured from begin_ms, when offloading was first possible, to end_ms; those
    from counted_ms on are counted. `noted` are the notes about these frames and all before them.
    Units: monotonic ms of this machine, which all processes share.
    """

    started: RunStarted
    records: tuple[Record, ...]
    begin_ms: float
    end_ms: float
    link_before: Stats
    link_after: Stats
    changes: tuple[Change, ...]
    noted: tuple[FrameNotes, ...]

    @property
    def counted_ms(self) -> float:
        """When counting begins."""
        return self.begin_ms + 1000.0 * SETTLE_S

    @property
    def counted(self) -> list[Record]:
        """The records of the frames that are counted."""
        return _within(self.records, self.counted_ms, self.end_ms)

    @property
    def answers(self) -> list[Answer]:
        """The answers, in order of capture."""
        found = [each for each in self.records if isinstance(each, Answer)]
        return sorted(found, key=lambda answer: answer.captured_ms)

    @property
    def offloads(self) -> list[OffloadRecord]:
        """How the offloads ended."""
        return [each for each in self.records if isinstance(each, OffloadRecord)]


def run_really(
    house: House,
    settings: DeviceSettings,
    shape: Shape,
    folder: Path,
    *,
    seconds: float,
    say: Say,
    plan: Plan | None = None,
) -> RealRun:
    """Run the daemon until so long has been counted, from the moment when it may offload, or where it never
    may, from its first answer.

    Raises: DeviceError when a process ends early; DataError when no answer comes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    results = folder / "results.jsonl"
    config = folder / "device.toml"
    write_config(settings, config, broker_url=house.broker_url, results=results)
    house.link.begin(shape)
    notes = folder / "notes.jsonl"
    device = house.device(config, notes=notes, log=folder / "device.log", run_on=settings.run_on)
    with device:
        try:
            watch = _Watch(house, device, Tail(results), settings.offload, say)
            before = watch.wait_for_begin()
            changes = watch.play(plan, seconds)
            after = house.link.stats()
        finally:
            house.link.restore()
            if plan is not None:
                house.make_free()
    everything = list(read_records(results))
    noted = by_frame(read_notes(notes))
    begin_ms = watch.begin_ms
    end_ms = begin_ms + 1000.0 * (SETTLE_S + seconds)
    return RealRun(
        started=_started(everything, results),
        records=tuple(_within(everything, begin_ms, end_ms)),
        begin_ms=begin_ms,
        end_ms=end_ms,
        link_before=before,
        link_after=after,
        changes=tuple(changes),
        noted=tuple(each for each in noted if each.captured_ms < end_ms),
    )


class _Watch:
    """Follows one run and does to it what the plan says."""

    def __init__(self, house: House, device: Program, tail: Tail, offload: bool, say: Say) -> None:
        self._house = house
        self._device = device
        self._tail = tail
        self._offload = offload
        self._say = say
        self._answers = 0
        self.begin_ms = 0.0

    def wait_for_begin(self) -> Stats:
        """Wait for the first answer that might have been offloaded; how the link stood then."""
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s:
            self._device.check()
            for record in self._tail.fresh():
                if isinstance(record, Answer) and (record.link_up or not self._offload):
                    self.begin_ms = record.captured_ms
                    return self._house.link.stats()
            time.sleep(LOOK_S)
        raise DataError("no answer came over the link", file="device.log", why=f"waited {START_S:.0f} s")

    def play(self, plan: Plan | None, seconds: float) -> list[Change]:
        """Wait until the run is over, doing what the plan says at its time; what was done."""
        todo = _todo(plan, seconds, self._house)
        changes: list[Change] = []
        begin_s = self.begin_ms / 1000.0 + SETTLE_S
        said_s = SAY_S
        while (elapsed_s := time.monotonic() - begin_s) < seconds + LOOK_S:
            while todo and elapsed_s >= todo[0].at_s:
                each = todo.pop(0)
                each.act()
                changes.append(Change(each.what, time.monotonic() * 1000.0))
                self._say(f"{elapsed_s:5.1f} s  {each.what}")
            self._device.check()
            self._answers += sum(isinstance(record, Answer) for record in self._tail.fresh())
            if elapsed_s >= said_s:
                said_s += SAY_S
                self._say(f"{elapsed_s:5.1f} of {seconds:.0f} s, {self._answers} answers")
            time.sleep(LOOK_S)
        return changes


@dataclass(frozen=True, slots=True)
class _Todo:
    at_s: float
    what: str
    act: Callable[[], object]


CUT, RESTORED, BUSY, FREE = "link cut", "link restored", "board busy", "board free"


def _todo(plan: Plan | None, seconds: float, house: House) -> list[_Todo]:
    if plan is None:
        return []
    todo: list[_Todo] = []
    if plan.cut is not None:
        todo.append(_Todo(plan.cut[0] * seconds, CUT, house.link.cut))
        todo.append(_Todo(plan.cut[1] * seconds, RESTORED, house.link.restore))
    for begin, end in plan.busy:
        todo.append(_Todo(begin * seconds, BUSY, house.make_busy))
        todo.append(_Todo(end * seconds, FREE, house.make_free))
    return sorted(todo, key=lambda each: each.at_s)


def _started(everything: Sequence[LogRecord], results: Path) -> RunStarted:
    for record in everything:
        if isinstance(record, RunStarted):
            return record
    raise DataError("the run left no beginning", file=str(results))


def _within(everything: Sequence[LogRecord], begin_ms: float, end_ms: float) -> list[Record]:
    """The records of frames that were captured in a stretch of time."""
    frames = {
        each.frame
        for each in everything
        if isinstance(each, Answer | Drop) and begin_ms <= each.captured_ms < end_ms
    }
    return [
        each
        for each in everything
        if isinstance(each, Answer | Drop | OffloadRecord) and each.frame in frames
    ]


def busy_stretches(real: RealRun) -> list[tuple[float, float]]:
    """Stretches in which the board was busy, from the first frame that counts."""
    stretches: list[tuple[float, float]] = []
    since_ms: float | None = None
    for change in real.changes:
        at_ms = change.at_ms - real.begin_ms
        if change.what == BUSY:
            since_ms = at_ms
        elif since_ms is not None:
            stretches.append((since_ms, at_ms))
            since_ms = None
    return stretches


def inside(at_ms: float, stretches: Sequence[tuple[float, float]]) -> bool:
    """Whether a time lies in one of these stretches."""
    return any(begin <= at_ms < end for begin, end in stretches)
