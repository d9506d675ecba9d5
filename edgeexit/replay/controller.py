"""What drives one device in a replay: the same policy and estimator objects as on the board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgeexit.decide.decision import ComputeForecast, InFlight, LinkForecast, OffloadOption, Policy
from edgeexit.decide.drift import AuditTerms
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.link import LinkEstimator
from edgeexit.replay.profile import CostProfile
from edgeexit.replay.recording import Recording


class ComputeEstimator(Protocol):
    """Port: learns stage times; decide.LatencyModel is one."""

    def observe(self, stage: int, measured_ms: float, now_ms: float) -> None:
        """Learn from one finished stage."""
        ...

    def forecast(self, now_ms: float) -> ComputeForecast:
        """What is known at `now_ms`."""
        ...


class OffloadEstimator(Protocol):
    """Port: learns the link and the gateways; decide.LinkEstimator is one."""

    def least_way_ms(self, option: OffloadOption, now_ms: float) -> float | None:
        """What the way there and back takes at the least; None while nothing was measured."""
        ...

    def connection(self, up: bool, now_ms: float) -> None:
        """Learn that the transport connected or lost its connection."""
        ...

    def sent(self, token: int, option: OffloadOption, now_ms: float) -> None:
        """Learn that a payload was handed over."""
        ...

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
        """Learn from a reply, in time or late; `whole` where the gateway had run all stages."""
        ...

    def failed(
        self,
        token: int,
        reason: str,
        now_ms: float,
        *,
        queue_ms: float | None = None,
        compute_ms: float | None = None,
    ) -> None:
        """Learn that no reply will come, and what the request had cost a gateway that says so."""
        ...

    def worth_cancelling(
        self, in_flight: InFlight, now_ms: float, *, cancel_bytes: int, byte_price: float
    ) -> bool:
        """Whether the gateway should be told that nobody waits for this reply any more."""
        ...

    def pinged(self, uplink_bytes: int, elapsed_ms: float, now_ms: float) -> None:
        """Learn from a probe that came back."""
        ...

    def probe_failed(self, now_ms: float) -> None:
        """Learn that a probe did not come back."""
        ...

    def wants_probe(self, now_ms: float) -> int | None:
        """Bytes of a probe to send now, None where none is due."""
        ...

    def forecast(self, now_ms: float) -> LinkForecast:
        """What is known at `now_ms`."""
        ...


@dataclass(frozen=True, slots=True)
class Controller:
    """One device's mind for one run; made anew for every run, because it learns.

    `link` is None for a device without a transport; with `audits`, early answers are audited; one that
    `cancels` takes requests back once their frames are answered.
    """

    policy: Policy
    latency: ComputeEstimator
    link: OffloadEstimator | None
    audits: AuditTerms | None = None
    cancels: bool = True


ControllerFactory = Callable[[CostProfile, Recording], Controller]
PolicyFactory = Callable[[CostProfile, Recording], Policy]


def controller_of(
    policy: PolicyFactory, *, transport: bool = True, cancels: bool = True
) -> ControllerFactory:
    """A factory for a policy with the estimators that the device uses.

    The policy is made anew for every run, from the costs and from the recording's calibrations.
    """

    def make(profile: CostProfile, recording: Recording) -> Controller:
        return Controller(
            policy=policy(profile, recording),
            latency=LatencyModel(profile.stage_ms),
            link=LinkEstimator() if transport else None,
            cancels=cancels,
        )

    return make
