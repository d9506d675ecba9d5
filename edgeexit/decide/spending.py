"""The prices in force on a device: those that its owner set, and those that keep long-run budgets."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from edgeexit.decide.price import DualPrice


class Spending:
    """Counts what is spent, and says what a byte and a millijoule must buy now.

    Energy has a price only once a sensor has told the board's power: a stage then costs its time at that
    power, the board's rest included, which no sensor tells apart.
    Units: byte_price, quality that a byte must buy in any case; bytes_per_s and energy_mj_per_s (which is
    milliwatts), long-run budgets, None where there is none.
    Raises: ConfigError when a budget is not positive and finite.
    """

    __slots__ = ("_byte_price", "_bytes", "_energy", "_power_w")

    def __init__(
        self,
        *,
        byte_price: float = 0.0,
        bytes_per_s: float | None = None,
        energy_mj_per_s: float | None = None,
    ) -> None:
        self._byte_price = byte_price
        self._bytes = None if bytes_per_s is None else DualPrice(bytes_per_s)
        self._energy = None if energy_mj_per_s is None else DualPrice(energy_mj_per_s)
        self._power_w: float | None = None

    def byte_price(self, now_ms: float) -> float:
        """Quality that one uplink byte must buy now."""
        return self._byte_price if self._bytes is None else self._byte_price + self._bytes.price(now_ms)

    def energy_price(self, now_ms: float) -> float:
        """Quality that one millijoule must buy now; 0 without a budget or a sensor."""
        if self._energy is None or self._power_w is None:
            return 0.0
        return self._energy.price(now_ms)

    def stage_energy_mj(self, stage_ms: Sequence[float]) -> tuple[float, ...]:
        """What stages of these times cost now; empty without a budget or a sensor. Shapes: (K,)."""
        power_w = self._power_w
        if self._energy is None or power_w is None:
            return ()
        return tuple(each_ms * power_w for each_ms in stage_ms)

    @property
    def prices_energy(self) -> bool:
        """Whether stages have costs."""
        return self._energy is not None and self._power_w is not None

    def power(self, power_w: float | None) -> None:
        """Learn the board's power from a sensor, None where it says nothing; safe from another thread."""
        usable = power_w is not None and isfinite(power_w) and power_w > 0.0
        self._power_w = power_w if usable else None

    def sent(self, payload_bytes: int) -> None:
        """Count a payload that was handed over."""
        if self._bytes is not None:
            self._bytes.used(payload_bytes)

    def ran(self, stage_ms: float) -> None:
        """Count a stage that was run."""
        power_w = self._power_w
        if self._energy is not None and power_w is not None:
            self._energy.used(stage_ms * power_w)
