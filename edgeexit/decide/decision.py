"""What a policy is shown, and what it may answer.

A policy is a pure function of a Situation: no clock, no input or output, no globals. The same object
drives the daemon, the replay and the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from edgeexit.nouns import quickly_made


class Action(Enum):
    """What to do next with the frame in hand."""

    EXIT = "exit"
    """Emit the best answer in hand and close the frame, which cancels what is in flight for it.

    Asked for before anything is in hand, it runs stage 0 first: after stage 0 there is always an answer.
    """
    CONTINUE = "continue"
    """Run the next stage here."""
    OFFLOAD = "offload"
    """Send `option` now, then decide again: computing goes on."""
    WAIT = "wait"
    """Idle until a reply, a new budget, or `wait_ms` have passed; only with a payload in flight."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Evidence:
    """What the finished exits have said, as one view.

    `expected_quality[j]` is the calibrated quality of exit j given the score of `exit`: of the answer
    in hand for j = exit, of a deeper answer for j > exit, of the answer then given for j < exit.
    Units: fractions, 0 to 1. Shapes: expected_quality (K,).
    """

    exit: int
    score: float
    label: int | None
    expected_quality: tuple[float, ...]

    @property
    def quality(self) -> float:
        """Expected quality of the answer in hand."""
        return self.expected_quality[self.exit]


@quickly_made
@dataclass(frozen=True, slots=True)
class OffloadOption:
    """One payload that could be sent now.

    Units: payload_bytes, on the wire, framing included; encode_ms, time to make it; quality_cost,
    fraction of quality that the codec loses; energy_mj, to encode and send it, 0 where not measured.
    """

    boundary: int
    codec: str
    payload_bytes: int
    encode_ms: float = 0.0
    quality_cost: float = 0.0
    energy_mj: float = 0.0


@quickly_made
@dataclass(frozen=True, slots=True)
class InFlight:
    """A payload that was sent for this frame and has not been answered.

    Units: waited_ms, since it was handed to the transport.
    """

    option: OffloadOption
    waited_ms: float


class ComputeForecast(Protocol):
    """What is known now about the time of stages here."""

    def probability_within(self, first: int, stop: int, limit_ms: float) -> float:
        """Probability that stages first … stop-1 finish within `limit_ms` from now."""
        ...

    def median_ms(self, first: int, stop: int) -> float:
        """Median time of stages first … stop-1 from now."""
        ...


class LinkForecast(Protocol):
    """What is known now about the link and the gateways behind it."""

    @property
    def up(self) -> bool:
        """Whether anything may be sent now."""
        ...

    def probability_within(self, option: OffloadOption, limit_ms: float) -> float:
        """Probability that an answer to `option`, sent now, is here within `limit_ms`."""
        ...

    def reply_probability(self, in_flight: InFlight, limit_ms: float) -> float:
        """Probability that the reply to a payload already in flight comes within `limit_ms` from now."""
        ...

    def median_ms(self, option: OffloadOption) -> float | None:
        """Median time until an answer to `option`; None while nothing was ever measured."""
        ...

    def request_price(self, option: OffloadOption) -> float:
        """Quality that others who share the gateways lose by this request; 0 where they are free."""
        ...


@quickly_made
@dataclass(frozen=True, slots=True)
class Situation:
    """All that a policy is shown.

    Units: remaining_ms, from now until the best answer must be emitted (deadline in force less the
    guard), negative when it has passed; elapsed_ms, since the frame was captured.
    Shapes: prior_quality (K,), mean quality of each exit before anything is known of this frame.

    `options` holds what could be sent now: boundary 0 always, boundary `stages_done` when its tensors
    exist, and only what the budget's bytes still pay for; it is empty without a transport.
    `later_options` holds what could be sent once further stages are done, boundaries `stages_done` + 1
    … K-1; with it a policy sees that a smaller payload is one stage away. `offloads` counts the
    payloads sent for this frame. A reply to one of them answers the frame without asking the policy.
    `stage_energy_mj` is what each stage costs, empty where no sensor ever told.
    """

    remaining_ms: float
    elapsed_ms: float
    stages_done: int
    stage_count: int
    evidence: Evidence | None
    prior_quality: tuple[float, ...]
    compute: ComputeForecast
    link: LinkForecast | None
    options: tuple[OffloadOption, ...]
    in_flight: InFlight | None
    offloads: int = 0
    byte_price: float = 0.0
    """Quality that one uplink byte must buy (λ_b of the objective)."""
    later_options: tuple[OffloadOption, ...] = ()
    energy_price: float = 0.0
    """Quality that one millijoule must buy (λ_e of the objective)."""
    stage_energy_mj: tuple[float, ...] = ()
    time_price: float = 0.0
    """Quality that one millisecond of this device must buy: what waiting frames lose meanwhile."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Stretch:
    """Stages that a policy runs without being asked between them: it would say the same each time.

    From this decision on, up to stage `stop` - 1, the answer after each stage is `then`, and after the
    last stage of the network `last`. That holds after stage k, and is known to hold before its output
    is judged, while all of this is true; where one is not, the policy is asked as ever:
    no link has come up; the stage took `slowest_ms[k]` at most; at least `least_ms[k]` remain by the
    budget in force then; its score is below `ask_from[k]` and is not 0, or that is infinite: then the
    score does not matter at all. After the last stage only time must remain.
    Whoever drives the policy may follow it or ask all the same.
    Units: ask_from, scores. Shapes: ask_from, slowest_ms and least_ms (K,).
    """

    stop: int
    ask_from: tuple[float, ...]
    slowest_ms: tuple[float, ...]
    least_ms: tuple[float, ...]
    then: Decision
    last: Decision


@quickly_made
@dataclass(frozen=True, slots=True)
class Decision:
    """A policy's choice, with the reason in one word or two (hyphenated).

    `stretch` comes with CONTINUE, from a policy that knows what it will say next.
    """

    action: Action
    reason: str
    option: OffloadOption | None = None
    wait_ms: float | None = None
    stretch: Stretch | None = None


class Policy(Protocol):
    """Port: chooses the next action; pure.

    A policy that learns also satisfies `edgeexit.decide.learner.Learner`: whoever drives it tells it
    what was observed, and its choice is a function of the Situation and of what it was told.
    """

    @property
    def name(self) -> str:
        """Name in reports."""
        ...

    @property
    def anytime(self) -> bool:
        """Whether the best answer in hand is emitted at the deadline while a stage or a wait overruns.

        The engine always does so. A replay does so only where this is True: baselines as published
        answer when they are done, late or not.
        """
        ...

    def decide(self, situation: Situation) -> Decision:
        """The next action for this frame."""
        ...
