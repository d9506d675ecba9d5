"""When the link or the gateways are gone, and what the device is told of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise


class OutageKind(str, Enum):
    """What is gone."""

    LINK = "link"
    """No byte passes; bytes in flight go on afterwards unless the connection was declared dead."""
    GATEWAY = "gateway"
    """The broker stands, but nothing answers what arrives there."""


@dataclass(frozen=True, slots=True)
class Outage:
    """One outage.

    Units: start_ms and end_ms; noticed_ms, from the start until the device is told and all that is in
    flight fails, None where it is never told; reconnect_ms, from the end until a device that was told
    may send again.
    """

    start_ms: float
    end_ms: float
    kind: OutageKind
    noticed_ms: float | None = None
    reconnect_ms: float = 0.0

    @property
    def told(self) -> bool:
        """Whether the device is told before it is over."""
        return self.noticed_ms is not None and self.start_ms + self.noticed_ms < self.end_ms

    @property
    def usable_ms(self) -> float:
        """When offloading is possible again."""
        return self.end_ms + (self.reconnect_ms if self.told else 0.0)


def repeated(
    kind: OutageKind,
    *,
    first_ms: float,
    length_ms: float,
    every_ms: float,
    until_ms: float,
    noticed_ms: float | None = None,
    reconnect_ms: float = 0.0,
) -> tuple[Outage, ...]:
    """Equal outages at equal distances, such as five seconds each minute."""
    outages: list[Outage] = []
    start_ms = first_ms
    while start_ms < until_ms:
        outages.append(Outage(start_ms, start_ms + length_ms, kind, noticed_ms, reconnect_ms))
        start_ms += every_ms
    return tuple(outages)


class Gaps:
    """Intervals in order, for asking which one covers a time, or is the next to end.

    Raises: ValueError when they are empty, out of order or overlap.
    """

    __slots__ = ("_ends_ms", "_starts_ms")

    def __init__(self, outages: Sequence[Outage], kind: OutageKind) -> None:
        chosen = sorted((each.start_ms, each.end_ms) for each in outages if each.kind is kind)
        if any(not start < end for start, end in chosen) or any(a[1] > b[0] for a, b in pairwise(chosen)):
            raise ValueError("outages of one kind have a length and do not overlap")
        self._starts_ms = [start for start, _ in chosen]
        self._ends_ms = [end for _, end in chosen]

    def __bool__(self) -> bool:
        return bool(self._starts_ms)

    def end_of(self, at_ms: float) -> float | None:
        """When the gap that covers a time ends; None where there is none."""
        index = bisect_right(self._starts_ms, at_ms) - 1
        if index >= 0 and at_ms < self._ends_ms[index]:
            return self._ends_ms[index]
        return None

    def finish_ms(
        self,
        start_ms: float,
        amount: float,
        *,
        finish: Callable[[float, float], float],
        flowed: Callable[[float], float],
    ) -> float:
        """When an amount is through if nothing flows during the gaps."""
        index = bisect_right(self._ends_ms, start_ms)
        while True:
            if index < len(self._starts_ms) and self._starts_ms[index] <= start_ms:
                start_ms = self._ends_ms[index]
                index += 1
                continue
            end_ms = finish(start_ms, amount)
            if index >= len(self._starts_ms) or end_ms <= self._starts_ms[index]:
                return end_ms
            amount -= max(0.0, flowed(self._starts_ms[index]) - flowed(start_ms))
            start_ms = self._ends_ms[index]
            index += 1
