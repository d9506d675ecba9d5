"""What a policy was shown, what it said and what it was told: noted alike on the device and in replay.

    python -m benchmarks.reality.noting --notes FILE [--run-on] --config FILE

runs the device daemon as it is, but for a policy that notes all this in memory and writes it when it ends.
With --run-on that policy runs one stage after the other until the deadline timer stops it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import msgspec

from edgeexit.bundle.manifest import Manifest
from edgeexit.decide.decision import Action, Decision, Evidence, InFlight, OffloadOption, Policy, Situation
from edgeexit.decide.learner import (
    Audited,
    Failed,
    FrameClosed,
    Learner,
    Observation,
    Pinged,
    Replied,
    Sent,
    StageDone,
)
from edgeexit.device.__main__ import main as device_main
from edgeexit.device.config import PolicyConfig
from edgeexit.device.guarantee import Guarantee
from edgeexit.device.policy import choose_policy
from edgeexit.errors import DataError

KINDS: dict[str, type[Observation]] = {
    kind.__name__: kind for kind in (StageDone, Sent, Replied, Failed, Pinged, FrameClosed, Audited)
}


class Asked(msgspec.Struct, frozen=True, gc=False, tag="asked"):
    """One decision: the situation but for its forecasts, and what was decided.

    Units: as in Situation and Decision; link_up, of the link's forecast, None without a link.
    """

    remaining_ms: float
    elapsed_ms: float
    stages_done: int
    evidence: Evidence | None
    options: tuple[OffloadOption, ...]
    later_options: tuple[OffloadOption, ...]
    in_flight: InFlight | None
    offloads: int
    byte_price: float
    link_up: bool | None
    action: Action
    reason: str
    option: OffloadOption | None


class Told(msgspec.Struct, frozen=True, gc=False, tag="told"):
    """One observation, made at `now_ms`; `kind` is its class."""

    now_ms: float
    kind: str
    what: msgspec.Raw


class _Told(msgspec.Struct, frozen=True, gc=False, tag="told"):
    now_ms: float
    kind: str
    what: Observation


Note = Asked | tuple[float, Observation]
"""A decision, or an observation with its time, on the clock of the run."""


class Noted:
    """A policy that notes what the one inside is shown, says and is told, in order."""

    def __init__(self, inner: Policy) -> None:
        self._inner = inner
        self.notes: list[Note] = []

    @property
    def name(self) -> str:
        """As the policy inside."""
        return self._inner.name

    @property
    def anytime(self) -> bool:
        """As the policy inside."""
        return self._inner.anytime

    def decide(self, situation: Situation) -> Decision:
        """What the policy inside says."""
        decision = self._inner.decide(situation)
        link = situation.link
        self.notes.append(
            Asked(
                situation.remaining_ms,
                situation.elapsed_ms,
                situation.stages_done,
                situation.evidence,
                situation.options,
                situation.later_options,
                situation.in_flight,
                situation.offloads,
                situation.byte_price,
                None if link is None else link.up,
                decision.action,
                decision.reason,
                decision.option,
            )
        )
        return decision

    def learn(self, observation: Observation, now_ms: float) -> None:
        """Note it, and pass it on where the policy inside learns."""
        self.notes.append((now_ms, observation))
        if isinstance(self._inner, Learner):
            self._inner.learn(observation, now_ms)


class RunOn:
    """Runs stages, whatever the time; only the deadline timer ends a frame before its last exit."""

    @property
    def name(self) -> str:
        """Name in reports."""
        return "run-on"

    @property
    def anytime(self) -> bool:
        """It answers at the deadline with what it has."""
        return True

    def decide(self, situation: Situation) -> Decision:
        """The next stage while there is one."""
        done = situation.stages_done == situation.stage_count
        return Decision(Action.EXIT, "last-exit") if done else Decision(Action.CONTINUE, "run-on")


@dataclass(frozen=True, slots=True)
class FrameNotes:
    """The notes of one frame, from what was told since the one before was closed until it was closed."""

    frame: int
    captured_ms: float
    notes: tuple[Note, ...]

    @property
    def decisions(self) -> tuple[Asked, ...]:
        """Its decisions, in order."""
        return tuple(each for each in self.notes if isinstance(each, Asked))

    @property
    def stage_ms(self) -> dict[int, float]:
        """How long its stages took, by stage, those included that ended after its answer."""
        return {stage: ended_ms - began_ms for stage, (began_ms, ended_ms) in self.stages.items()}

    @property
    def stages(self) -> dict[int, tuple[float, float]]:
        """When its stages began and ended, by stage, on the clock of the run."""
        return {
            each[1].stage: (each[0] - each[1].measured_ms, each[0])
            for each in self.notes
            if isinstance(each, tuple) and isinstance(each[1], StageDone) and each[1].frame == self.frame
        }


def by_frame(notes: Sequence[Note]) -> list[FrameNotes]:
    """The notes, cut after each frame was closed; what follows the last one is left out."""
    frames: list[FrameNotes] = []
    held: list[Note] = []
    for note in notes:
        held.append(note)
        if isinstance(note, tuple):
            now_ms, seen = note
            if isinstance(seen, FrameClosed) and seen.latency_ms is not None:
                frames.append(FrameNotes(seen.frame, now_ms - seen.latency_ms, tuple(held)))
                held = []
    return frames


def write_notes(notes: Sequence[Note], path: Path) -> None:
    """Write notes, one line of JSON each."""
    encoder = msgspec.json.Encoder()
    with path.open("wb") as file:
        for note in notes:
            if isinstance(note, tuple):
                line = encoder.encode(_Told(note[0], type(note[1]).__name__, note[1]))
            else:
                line = encoder.encode(note)
            file.write(line + b"\n")


def read_notes(path: Path) -> list[Note]:
    """Read them again. Raises: DataError naming the line where they are none."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read", file=str(path), why=error.strerror) from error
    return [_note(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def _note(line: bytes, place: str) -> Note:
    try:
        note = _decoder.decode(line)
        if isinstance(note, Asked):
            return note
        return note.now_ms, msgspec.json.decode(note.what, type=KINDS[note.kind])
    except (msgspec.MsgspecError, KeyError) as error:
        raise DataError(f"{place}: not a note", file=place, why=str(error)) from error


_decoder: msgspec.json.Decoder[Asked | Told] = msgspec.json.Decoder(Asked | Told)


def main() -> int:
    """Run the daemon and write its notes when it ends; its exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.reality.noting")
    parser.add_argument("--notes", type=Path, required=True)
    parser.add_argument("--run-on", action="store_true")
    options, words = parser.parse_known_args()
    notes: Path = options.notes
    run_on: bool = options.run_on
    made: list[Noted] = []

    def noted(
        config: PolicyConfig, manifest: Manifest, variants: Sequence[str], guarantee: Guarantee | None = None
    ) -> Policy:
        inner = RunOn() if run_on else choose_policy(config, manifest, variants, guarantee)
        made.append(Noted(inner))
        return made[-1]

    with patch("edgeexit.device.daemon.choose_policy", noted):
        status = device_main(words)
    write_notes([note for each in made for note in each.notes], notes)
    return status


if __name__ == "__main__":
    sys.exit(main())
