"""What deciding and learning cost: wrappers that time a controller's parts while it runs a replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edgeexit.decide.decision import (
    ComputeForecast,
    Decision,
    InFlight,
    LinkForecast,
    OffloadOption,
    Policy,
    Situation,
)
from edgeexit.decide.learner import Learner, Observation
from edgeexit.replay.controller import (
    ComputeEstimator,
    Controller,
    ControllerFactory,
    OffloadEstimator,
)
from edgeexit.replay.profile import CostProfile
from edgeexit.replay.recording import Recording

Clock = Callable[[], float]
"""Seconds, of the highest resolution."""


@dataclass(slots=True)
class Costs:
    """Times taken. Units: µs; decisions hold both forecasts and the policy, updates one observation."""

    decision_us: list[float] = field(default_factory=list)
    update_us: list[float] = field(default_factory=list)


def timed(factory: ControllerFactory, costs: Costs, clock: Clock) -> ControllerFactory:
    """The same controllers, with their times written to `costs`."""

    def make(profile: CostProfile, recording: Recording) -> Controller:
        inner = factory(profile, recording)
        watch = _Watch(costs, clock)
        policy: Policy = _TimedPolicy(inner.policy, watch)
        if isinstance(inner.policy, Learner):
            policy = _TimedLearner(inner.policy, inner.policy, watch)
        link = None if inner.link is None else _TimedLink(inner.link, watch)
        return Controller(policy, _TimedCompute(inner.latency, watch), link, cancels=inner.cancels)

    return make


@dataclass(slots=True)
class _Watch:
    costs: Costs
    clock: Clock
    pending_us: float = 0.0

    def forecast_took(self, began_s: float) -> None:
        self.pending_us += (self.clock() - began_s) * 1e6

    def decision_took(self, began_s: float) -> None:
        self.costs.decision_us.append(self.pending_us + (self.clock() - began_s) * 1e6)
        self.pending_us = 0.0

    def update_took(self, began_s: float) -> None:
        self.costs.update_us.append((self.clock() - began_s) * 1e6)


class _TimedPolicy:
    def __init__(self, inner: Policy, watch: _Watch) -> None:
        self._inner = inner
        self._watch = watch

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def anytime(self) -> bool:
        return self._inner.anytime

    def decide(self, situation: Situation) -> Decision:
        began_s = self._watch.clock()
        decision = self._inner.decide(situation)
        self._watch.decision_took(began_s)
        return decision


class _TimedLearner(_TimedPolicy):
    def __init__(self, inner: Policy, learner: Learner, watch: _Watch) -> None:
        super().__init__(inner, watch)
        self._learner = learner

    def learn(self, observation: Observation, now_ms: float) -> None:
        began_s = self._watch.clock()
        self._learner.learn(observation, now_ms)
        self._watch.update_took(began_s)


class _TimedCompute:
    def __init__(self, inner: ComputeEstimator, watch: _Watch) -> None:
        self._inner = inner
        self._watch = watch

    def observe(self, stage: int, measured_ms: float, now_ms: float) -> None:
        began_s = self._watch.clock()
        self._inner.observe(stage, measured_ms, now_ms)
        self._watch.update_took(began_s)

    def forecast(self, now_ms: float) -> ComputeForecast:
        began_s = self._watch.clock()
        forecast = self._inner.forecast(now_ms)
        self._watch.forecast_took(began_s)
        return forecast


class _TimedLink:
    def __init__(self, inner: OffloadEstimator, watch: _Watch) -> None:
        self._inner = inner
        self._watch = watch

    def least_way_ms(self, option: OffloadOption, now_ms: float) -> float | None:
        return self._inner.least_way_ms(option, now_ms)

    def connection(self, up: bool, now_ms: float) -> None:
        self._inner.connection(up, now_ms)

    def sent(self, token: int, option: OffloadOption, now_ms: float) -> None:
        began_s = self._watch.clock()
        self._inner.sent(token, option, now_ms)
        self._watch.update_took(began_s)

    def replied(
        self,
        token: int,
        elapsed_ms: float,
        queue_ms: float,
        compute_ms: float,
        downlink_bytes: int,
        now_ms: float,
        *,
        whole: bool = True,
    ) -> None:
        began_s = self._watch.clock()
        self._inner.replied(token, elapsed_ms, queue_ms, compute_ms, downlink_bytes, now_ms, whole=whole)
        self._watch.update_took(began_s)

    def failed(
        self,
        token: int,
        reason: str,
        now_ms: float,
        *,
        queue_ms: float | None = None,
        compute_ms: float | None = None,
    ) -> None:
        began_s = self._watch.clock()
        self._inner.failed(token, reason, now_ms, queue_ms=queue_ms, compute_ms=compute_ms)
        self._watch.update_took(began_s)

    def worth_cancelling(
        self, in_flight: InFlight, now_ms: float, *, cancel_bytes: int, byte_price: float
    ) -> bool:
        return self._inner.worth_cancelling(
            in_flight, now_ms, cancel_bytes=cancel_bytes, byte_price=byte_price
        )

    def pinged(self, uplink_bytes: int, elapsed_ms: float, now_ms: float) -> None:
        began_s = self._watch.clock()
        self._inner.pinged(uplink_bytes, elapsed_ms, now_ms)
        self._watch.update_took(began_s)

    def probe_failed(self, now_ms: float) -> None:
        self._inner.probe_failed(now_ms)

    def wants_probe(self, now_ms: float) -> int | None:
        return self._inner.wants_probe(now_ms)

    def forecast(self, now_ms: float) -> LinkForecast:
        began_s = self._watch.clock()
        forecast = self._inner.forecast(now_ms)
        self._watch.forecast_took(began_s)
        return forecast
