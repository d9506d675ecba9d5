"""Fixed rules to try all of: the best of them in hindsight is the strongest static baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from edgeexit.decide.decision import Action, Decision, Situation
from edgeexit.decide.policies.fixed import option_at

# Reached by no score.
NO_THRESHOLD = 2.0
# Thresholds of the grid: twenty, dense where scores of good exits lie.
THRESHOLDS = (
    *(0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.84),
    *(0.87, 0.9, 0.92, 0.94, 0.96, 0.97, 0.98, 0.99, 0.995, NO_THRESHOLD),
)


class Sending(Enum):
    """When a static rule sends the image."""

    NEVER = "never"
    ALWAYS = "always"
    DOUBTFUL = "doubtful"
    """Only where the exit before has a score under the threshold."""


@dataclass(frozen=True, slots=True)
class StaticRule:
    """Depth cap, one threshold, and when to send; computes on while a payload is away.

    `after` is the number of stages done before a payload is sent (0: at once).
    """

    cap: int
    threshold: float
    sending: Sending
    after: int = 0

    @property
    def name(self) -> str:
        """Name in reports."""
        level = "none" if self.threshold > 1.0 else f"{self.threshold:g}"
        sent = self.sending.value if self.sending is Sending.NEVER else f"{self.sending.value}@{self.after}"
        return f"static(cap={self.cap},threshold={level},send={sent})"

    @property
    def anytime(self) -> bool:
        """Like the recommended policy it answers at the deadline, so that the choices are compared."""
        return True

    def decide(self, situation: Situation) -> Decision:
        """Stop over the threshold, send by the rule, run to the cap, then wait for what is away."""
        evidence = situation.evidence
        done = situation.stages_done
        passed = evidence is not None and evidence.score >= self.threshold
        if evidence is not None and situation.remaining_ms <= 0.0:
            return Decision(Action.EXIT, "deadline")
        sends = self.sending is Sending.ALWAYS or (self.sending is Sending.DOUBTFUL and not passed)
        due = sends and done == self.after and done < situation.stage_count and situation.offloads == 0
        if due and situation.link is not None and situation.link.up:
            # The input or the boundary at hand, whichever is fewer bytes.
            option = min(
                (
                    found
                    for boundary in {0, done}
                    if (found := option_at(situation.options, boundary, None)) is not None
                ),
                key=lambda option: (option.payload_bytes, option.boundary),
                default=None,
            )
            if option is not None:
                return Decision(Action.OFFLOAD, "by-rule", option)
        if evidence is None:
            return Decision(Action.CONTINUE, "first-answer")
        if situation.in_flight is None and passed:
            return Decision(Action.EXIT, "over-threshold")
        if done < self.cap:
            return Decision(Action.CONTINUE, "under-cap")
        if situation.in_flight is not None and done < situation.stage_count:
            return Decision(Action.WAIT, "reply-awaited", wait_ms=max(0.0, situation.remaining_ms))
        return Decision(Action.EXIT, "depth-cap")


def static_rules(stage_count: int, *, thresholds: Sequence[float] = THRESHOLDS) -> tuple[StaticRule, ...]:
    """The whole grid: caps × thresholds × ways of sending. Replay all, keep the best."""
    rules: list[StaticRule] = []
    for cap in range(1, stage_count + 1):
        # A rule that sends at once has no use for a threshold.
        rules.append(StaticRule(cap, NO_THRESHOLD, Sending.ALWAYS, 0))
        for threshold in thresholds:
            rules.append(StaticRule(cap, threshold, Sending.NEVER))
            rules.extend(StaticRule(cap, threshold, Sending.ALWAYS, after) for after in range(1, cap))
            rules.extend(StaticRule(cap, threshold, Sending.DOUBTFUL, after) for after in range(1, cap + 1))
    return tuple(rules)
