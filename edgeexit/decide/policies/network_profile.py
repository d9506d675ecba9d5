"""What the published baselines know beforehand: the offline profile of one network on one device."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from edgeexit.decide.decision import OffloadOption, Situation
from edgeexit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class NetworkProfile:
    """Medians measured before anything runs, as the papers assume them.

    Shapes: device_ms (K,), gateway_ms (K,), accuracy (K,), macs (K,); payloads (K,), for each boundary
    the one payload that a baseline sends there, None where the boundary may not be sent.
    Units: ms; accuracy, fraction.
    Raises: ConfigError when lengths differ or a time is not positive and finite.
    """

    device_ms: tuple[float, ...]
    gateway_ms: tuple[float, ...]
    accuracy: tuple[float, ...]
    payloads: tuple[OffloadOption | None, ...]
    macs: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.device_ms)
        others = (self.gateway_ms, self.accuracy, self.payloads, self.macs)
        if count == 0 or any(len(other) != count for other in others):
            raise ConfigError("network profile is refused", why="its columns differ in length, or are empty")
        if not all(isfinite(value) and value > 0.0 for value in (*self.device_ms, *self.gateway_ms)):
            raise ConfigError("network profile is refused", why="a stage time is not positive and finite")

    @property
    def stage_count(self) -> int:
        """K."""
        return len(self.device_ms)

    def front_ms(self, cut: int) -> float:
        """Profiled time of the stages before a cut, on the device."""
        return sum(self.device_ms[:cut])

    def back_ms(self, cut: int) -> float:
        """Profiled time of the stages from a cut on, at the gateway."""
        return sum(self.gateway_ms[cut:])

    def cuts(self) -> tuple[int, ...]:
        """Boundaries that may be sent."""
        return tuple(cut for cut, payload in enumerate(self.payloads) if payload is not None)


def sendable(situation: Situation, payload: OffloadOption | None) -> OffloadOption | None:
    """The option of this situation that matches a profiled payload; None when it cannot be sent now."""
    if payload is None or situation.link is None or not situation.link.up:
        return None
    for option in situation.options:
        if option.boundary == payload.boundary and option.codec == payload.codec:
            return option
    return None
