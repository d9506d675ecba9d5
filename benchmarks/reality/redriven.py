"""Which input makes a real device decide otherwise than its replay: its notes, put to the policy again.

From the notes of a run the estimators are brought to the very state that they had at each decision, and the
policy is asked again. That it repeats itself shows that nothing but its inputs differs between two worlds;
asked with one input of the other world at a time it tells which of them matters.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.reality.noting import Asked, FrameNotes
from edgeexit.decide.decision import Action, Decision, Policy, Situation
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.learner import Failed, Learner, Observation, Pinged, Replied, Sent, StageDone
from edgeexit.decide.link import LinkEstimator

# What of a situation is taken from the other world: the name it has on the page.
Taken = Callable[[Situation, Situation], Situation]
TAKEN: Mapping[str, Taken] = {
    "link": lambda own, other: replace(own, link=other.link),
    "stages": lambda own, other: replace(own, compute=other.compute),
    "time left": lambda own, other: replace(
        own, remaining_ms=other.remaining_ms, elapsed_ms=other.elapsed_ms
    ),
    "encoding": lambda own, other: replace(own, options=other.options, later_options=other.later_options),
    "all of them": lambda own, other: replace(
        own,
        link=other.link,
        compute=other.compute,
        remaining_ms=other.remaining_ms,
        elapsed_ms=other.elapsed_ms,
        options=other.options,
        later_options=other.later_options,
    ),
}


@dataclass(frozen=True, slots=True)
class Mind:
    """What decides in both worlds. Shapes: stage_ms and prior_quality (K,)."""

    make: Callable[[], Policy]
    stage_ms: tuple[float, ...]
    prior_quality: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Which inputs part a real run from its replays.

    Units: repeated, the share of both worlds' decisions that the policy repeats from its notes; the others
    are points of frames whose first decision is to send: for real, in replay, and `taken`, in replay with one
    input as it was for real.
    """

    repeated: float
    sent_really: float
    sent_replayed: float
    taken: dict[str, float]


@dataclass(frozen=True, slots=True)
class Asking:
    """One decision: what was noted of it, the situation rebuilt, and what the policy says to that."""

    noted: Asked
    situation: Situation
    decision: Decision


def redrive(frames: Sequence[FrameNotes], mind: Mind) -> list[list[Asking]]:
    """Every decision of every frame again, from the beginning of the run."""
    latency, link, policy = LatencyModel(mind.stage_ms), LinkEstimator(), mind.make()
    if frames:
        link.connection(True, frames[0].captured_ms)
    tokens = _Tokens()
    asked: list[list[Asking]] = []
    for frame in frames:
        askings: list[Asking] = []
        for note in frame.notes:
            if isinstance(note, Asked):
                situation = _situation(note, frame.captured_ms + note.elapsed_ms, mind, latency, link)
                askings.append(Asking(note, situation, policy.decide(situation)))
                continue
            now_ms, seen = note
            tokens.tell(seen, now_ms, latency, link)
            if isinstance(policy, Learner):
                policy.learn(seen, now_ms)
        asked.append(askings)
    return asked


def _situation(
    note: Asked, now_ms: float, mind: Mind, latency: LatencyModel, link: LinkEstimator
) -> Situation:
    return Situation(
        remaining_ms=note.remaining_ms,
        elapsed_ms=note.elapsed_ms,
        stages_done=note.stages_done,
        stage_count=len(mind.stage_ms),
        evidence=note.evidence,
        prior_quality=mind.prior_quality,
        compute=latency.forecast(now_ms),
        link=link.forecast(now_ms),
        options=note.options,
        in_flight=note.in_flight,
        offloads=note.offloads,
        byte_price=note.byte_price,
        later_options=note.later_options,
    )


class _Tokens:
    """Tells the estimators what was observed, exchanges by the order in which they were sent."""

    def __init__(self) -> None:
        self._next = 0
        self._open: defaultdict[int, deque[int]] = defaultdict(deque)

    def tell(self, seen: Observation, now_ms: float, latency: LatencyModel, link: LinkEstimator) -> None:
        if isinstance(seen, StageDone):
            latency.observe(seen.stage, seen.measured_ms, now_ms)
        elif isinstance(seen, Sent):
            self._next += 1
            self._open[seen.frame].append(self._next)
            link.sent(self._next, seen.option, now_ms)
        elif isinstance(seen, Replied):
            token = self._token(seen.frame)
            link.replied(
                token,
                seen.elapsed_ms,
                seen.queue_ms,
                seen.compute_ms,
                seen.downlink_bytes,
                now_ms,
                whole=seen.whole,
            )
        elif isinstance(seen, Failed):
            token = self._token(seen.frame)
            link.failed(token, seen.reason, now_ms, queue_ms=seen.queue_ms, compute_ms=seen.compute_ms)
        elif isinstance(seen, Pinged):
            link.pinged(seen.uplink_bytes, seen.elapsed_ms, now_ms)

    def _token(self, frame: int) -> int:
        waiting = self._open[frame]
        return waiting.popleft() if waiting else -1


def inputs(
    real: Sequence[FrameNotes],
    replays: Sequence[Sequence[FrameNotes]],
    mind: Mind,
    *,
    counted_ms: float,
    begin_ms: float,
) -> Inputs:
    """Compare a real run with its replays, whose time 0 is `begin_ms` of the real one."""
    really: dict[float, Asking] = {}
    alike = asked = 0
    for frame, askings in zip(real, redrive(real, mind), strict=True):
        alike += sum(map(_repeats, askings))
        asked += len(askings)
        if askings and frame.captured_ms >= counted_ms:
            really[round(frame.captured_ms - begin_ms, 3)] = askings[0]
    policy = mind.make()
    sent_really = sent_replayed = pairs = 0
    taken = dict.fromkeys(TAKEN, 0)
    for replayed in replays:
        for frame, askings in zip(replayed, redrive(replayed, mind), strict=True):
            alike += sum(map(_repeats, askings))
            asked += len(askings)
            other = really.get(round(frame.captured_ms, 3))
            if other is None or not askings:
                continue
            pairs += 1
            sent_really += other.decision.action is Action.OFFLOAD
            sent_replayed += askings[0].decision.action is Action.OFFLOAD
            for name, take in TAKEN.items():
                changed = policy.decide(take(askings[0].situation, other.situation))
                taken[name] += changed.action is Action.OFFLOAD
    share = 100.0 / max(1, pairs)
    return Inputs(
        repeated=round(alike / max(1, asked), 4),
        sent_really=round(share * sent_really, 2),
        sent_replayed=round(share * sent_replayed, 2),
        taken={name: round(share * count, 2) for name, count in taken.items()},
    )


def _repeats(asking: Asking) -> bool:
    noted, again = asking.noted, asking.decision
    return (noted.action, noted.reason, noted.option) == (again.action, again.reason, again.option)
