"""The prices in force on a device: those that its owner set, and those that keep long-run budgets."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from edgeexit.decide.budget import Budget
from edgeexit.decide.price import DualPrice
from edgeexit.errors import ConfigError

# More than anybody sends; a budget that pays for more is none.
_ENDLESS_BYTES = 1 << 62


class Spending:
    """Counts what is spent, and says what a byte and a millijoule must buy now.

    Stages have a price of energy only once a sensor has told the board's power: a stage then costs its time
    at that power, the board's rest included, which no sensor tells apart. Sending has one only where it is
    known what the radio takes for a byte; it is part of the byte's price.
    Units: byte_price, quality that a byte must buy in any case; bytes_per_s and energy_mj_per_s (which is
    milliwatts), long-run budgets, None where there is none; sending_mj_per_byte, None where not known.
    Raises: ConfigError when a budget is not positive and finite, or what sending takes is below 0 or not.
    """

    __slots__ = ("_byte_price", "_bytes", "_energy", "_power_w", "_sending_mj_per_byte")

    def __init__(
        self,
        *,
        byte_price: float = 0.0,
        bytes_per_s: float | None = None,
        energy_mj_per_s: float | None = None,
        sending_mj_per_byte: float | None = None,
    ) -> None:
        self._byte_price = byte_price
        self._bytes = None if bytes_per_s is None else DualPrice(bytes_per_s)
        self._energy = None if energy_mj_per_s is None else DualPrice(energy_mj_per_s)
        self._power_w: float | None = None
        self._sending_mj_per_byte = 0.0
        self.sending(sending_mj_per_byte)

    def sending(self, mj_per_byte: float | None) -> None:
        """Learn what the radio takes to send a byte, None where that is not known. Raises: ConfigError."""
        self._sending_mj_per_byte = 0.0 if mj_per_byte is None else checked_mj_per_byte(mj_per_byte)

    def byte_price(self, now_ms: float) -> float:
        """Quality that one uplink byte must buy now, the energy of sending it included."""
        price = self._byte_price if self._bytes is None else self._byte_price + self._bytes.price(now_ms)
        if self._energy is not None and self._sending_mj_per_byte > 0.0:
            price += self._sending_mj_per_byte * self._energy.price(now_ms)
        return price

    def bytes_left(self, budget: Budget, sent_bytes: int) -> int | None:
        """What a frame's budget still pays for, of bytes and of energy to send them; None without a limit."""
        left_bytes = None if budget.uplink_bytes is None else budget.uplink_bytes - sent_bytes
        if budget.energy_mj is None or self._sending_mj_per_byte <= 0.0:
            return left_bytes
        paid = budget.energy_mj / self._sending_mj_per_byte
        by_energy = (_ENDLESS_BYTES if paid > _ENDLESS_BYTES else int(paid)) - sent_bytes
        return by_energy if left_bytes is None else min(left_bytes, by_energy)

    def energy_price(self, now_ms: float) -> float:
        """Quality that one millijoule of computing must buy now; 0 without a budget or a sensor."""
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
        """Count bytes that were handed over, and what sending them takes."""
        if self._bytes is not None:
            self._bytes.used(payload_bytes)
        if self._energy is not None:
            self._energy.used(payload_bytes * self._sending_mj_per_byte)

    def ran(self, stage_ms: float) -> None:
        """Count a stage that was run."""
        power_w = self._power_w
        if self._energy is not None and power_w is not None:
            self._energy.used(stage_ms * power_w)


def checked_mj_per_byte(mj_per_byte: float) -> float:
    """What sending a byte takes. Raises: ConfigError when it is below 0 or not finite."""
    if not (isfinite(mj_per_byte) and mj_per_byte >= 0.0):
        raise ConfigError(
            f"{mj_per_byte} millijoule a byte are refused",
            key="sending_mj_per_byte",
            why="energy is zero or more, and finite",
        )
    return mj_per_byte
