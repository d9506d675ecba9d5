"""What stages and payloads cost: a board, the gateways behind it, and what may be sent."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from edgeexit.decide.decision import OffloadOption
from edgeexit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CostProfile:
    """Costs of one network on one board with one kind of gateway.

    Shapes: stage_ms (K,), gateway_stage_ms (K,); option_columns names, for each option, the column of
    the recording that holds what its reply was worth.
    Units: stage_ms, medians on the idle board; gateway_stage_ms, medians at the gateway; noise, the
    deviation of the logarithm of a single stage time; decision_ms, charged to the clock a decision;
    overhead_ms, from the capture of a frame until the loop has it, on the idle board: decoding,
    preprocessing, handing over; result_bytes, what the device tells of every answer over the same link;
    envelope_bytes, what the message of a payload or probe carries beside it, which options do not count.
    Raises: ConfigError when the lengths differ or a time is not positive and finite.
    """

    name: str
    stage_ms: tuple[float, ...]
    gateway_stage_ms: tuple[float, ...]
    options: tuple[OffloadOption, ...]
    option_columns: tuple[int, ...]
    # A single stage on an idle board spreads by some 4 % around its median.
    noise: float = 0.04
    # What one decision costs on a small board: 30 µs on a workstation, some three times that on a Pi.
    decision_ms: float = 0.1
    overhead_ms: float = 0.0
    result_bytes: int = 0
    envelope_bytes: int = 0

    def __post_init__(self) -> None:
        times = (*self.stage_ms, *self.gateway_stage_ms)
        if not self.stage_ms or len(self.stage_ms) != len(self.gateway_stage_ms):
            self._refuse("device and gateway have different numbers of stages, or none")
        if not all(isfinite(time) and time > 0.0 for time in times):
            self._refuse("a stage time is not positive and finite")
        if len(self.options) != len(self.option_columns):
            self._refuse("every option needs the column of its recorded answers")
        if any(not 0 <= option.boundary < len(self.stage_ms) for option in self.options):
            self._refuse("an option names a boundary that does not exist")
        overheads = (self.overhead_ms, self.result_bytes, self.envelope_bytes)
        if not all(isfinite(overhead) and overhead >= 0.0 for overhead in overheads):
            self._refuse("an overhead is negative, or not finite")

    @property
    def stage_count(self) -> int:
        """K."""
        return len(self.stage_ms)

    def remote_ms(self, boundary: int) -> float:
        """Median service time of a request that offloads this boundary."""
        return sum(self.gateway_stage_ms[boundary:])

    def _refuse(self, why: str) -> None:
        raise ConfigError(f"cost profile {self.name!r} is refused", key="profile", why=why)
