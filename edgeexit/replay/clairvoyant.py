"""A device that knows all its own latencies beforehand, but of shared gateways only that they exist.

In a fleet the oracle of latencies also knows when every worker will be free, which hangs on what all
other devices will do: no device can know that. This one is what a device could reach that predicts
its own board and link without error. It goes through the replay like any policy, before real queues.
"""

from __future__ import annotations

from bisect import bisect_right

from edgeexit.decide.decision import Action, ComputeForecast, Decision, Situation
from edgeexit.replay.controller import ComputeEstimator, Controller
from edgeexit.replay.oracles import Clairvoyance, OracleChoice, best_choice, local_ends_ms
from edgeexit.replay.world import World


class OwnLatencies:
    """Policy and compute estimator in one: the estimator is how it is told the time.

    It sends what would be in time at a free gateway and is worth more than what can be computed here;
    it computes as deep as fits, and answers with the reply where that comes in time.
    """

    name = "own-latencies"
    anytime = True

    def __init__(self, world: World, inner: ComputeEstimator) -> None:
        self._world = world
        self._inner = inner
        self._uplink = world.new_uplink()
        self._now_ms = 0.0
        self._choice: OracleChoice | None = None
        self._last_stage = 0

    def observe(self, stage: int, measured_ms: float, now_ms: float) -> None:
        """Learn nothing: all is known."""
        self._inner.observe(stage, measured_ms, now_ms)

    def forecast(self, now_ms: float) -> ComputeForecast:
        """Hear the time."""
        self._now_ms = now_ms
        return self._inner.forecast(now_ms)

    def decide(self, situation: Situation) -> Decision:
        """The next action for this frame."""
        if situation.evidence is None and situation.in_flight is None and not situation.offloads:
            self._plan()
        choice = self._choice
        option = None if choice is None else choice.option
        if (
            option is not None
            and option in situation.options
            and not situation.offloads
            and option.boundary == situation.stages_done
        ):
            return Decision(Action.OFFLOAD, "best", option)
        if situation.evidence is None or situation.stages_done < self._last_stage:
            return Decision(Action.CONTINUE, "in-time")
        if situation.in_flight is not None:
            return Decision(Action.WAIT, "reply-awaited")
        return Decision(Action.EXIT, "last-in-time")

    def _plan(self) -> None:
        world = self._world
        frame = bisect_right(world.captured_ms, self._now_ms) - 1
        self._choice = best_choice(world, self._uplink, frame, Clairvoyance.LATENCY, guarded=True)
        limit_ms = world.expiry_ms[frame] - world.guard_ms(frame)
        self._last_stage = sum(end_ms <= limit_ms for end_ms in local_ends_ms(world, frame)[1:])
        if self._choice is not None and self._choice.option is not None:
            self._last_stage = max(self._last_stage, self._choice.option.boundary)


def own_latencies(world: World, controller: Controller) -> Controller:
    """The same device with this policy."""
    policy = OwnLatencies(world, controller.latency)
    return Controller(policy, policy, controller.link, cancels=controller.cancels)
