"""Which gateway gets the next request: what is known of each, and a choice among two at random.

Source for two random choices: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001.
For the circuit: Nygard, Release It!, 2007, "Circuit Breaker".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random

from edgeexit.transport.adverts import Advert, BundleAdvert
from edgeexit.transport.protocol import Clock
from edgeexit.transport.status import Status

# Adverts come once a second: two may be lost before a gateway counts as silent.
FRESH_MS = 3000.0

# Two losses happen on a radio; three in a row are a gateway that does not answer.
MISSES_TO_OPEN = 3

# How long a circuit stays open before a ping is tried, doubled after each ping in vain.
OPEN_MS = (1000.0, 15_000.0)

# A gateway that is busy and does not say for how long.
BUSY_MS = 100.0

# A gateway that drains says so in its next advert, a second later at most.
DRAINING_MS = 1500.0

# Weight of the newest sample: the last ten decide.
_SMOOTHING = 0.2

# Gateways remembered, and starts of each: hostile adverts must not fill the memory.
_GATEWAYS_CAP = 1024
_BOOTS_CAP = 8


@dataclass(slots=True)
class _Gateway:
    """What is known of one gateway. Units: times on the injected clock; network_ms, smoothed."""

    advert: Advert
    fresh_until_ms: float = 0.0
    unconfirmed: bool = False
    old_boots: list[str] = field(default_factory=list)
    busy_until_ms: float = 0.0
    network_ms: float | None = None
    misses: int = 0
    open_until_ms: float | None = None
    open_for_ms: float = OPEN_MS[0]
    probing: bool = False
    without: set[str] = field(default_factory=set)

    def bundle(self, digest12: str) -> BundleAdvert | None:
        if digest12 in self.without:
            return None
        return next((bundle for bundle in self.advert.bundles if bundle.digest12 == digest12), None)

    def abilities(self, digest12: str) -> frozenset[str]:
        """What it can unpack: of any bundle, and of this one."""
        bundle = self.bundle(digest12)
        return frozenset((*self.advert.unpacks, *(() if bundle is None else bundle.unpacks)))

    def close_circuit(self) -> None:
        self.misses = 0
        self.open_until_ms = None
        self.open_for_ms = OPEN_MS[0]
        self.probing = False


@dataclass(frozen=True, slots=True)
class _Takers:
    """The gateways that would take a run. Units: until_ms, when time alone may change it."""

    names: tuple[str, ...]
    until_ms: float


@dataclass(frozen=True, slots=True)
class Able:
    """Who would take a run: so many gateways, of which one at least can unpack each of these.

    Units: until_ms, when time alone may change it.
    """

    gateways: int
    abilities: frozenset[str]
    until_ms: float


class Dispatch:
    """Table of gateways, fed by adverts, replies and silences; safe from any thread."""

    def __init__(self, *, clock: Clock, random: Random, fresh_ms: float = FRESH_MS) -> None:
        self._clock = clock
        self._random = random
        self._fresh_ms = fresh_ms
        self._lock = threading.Lock()
        self._gateways: dict[str, _Gateway] = {}
        # Emptied by whatever changes what is known of a gateway.
        self._kept: dict[tuple[str, int], Able] = {}
        self._kept_takers: dict[tuple[str, int, int, frozenset[str]], _Takers] = {}

    def hear(self, gateway: str, advert: Advert, *, retained: bool) -> bool:
        """Take an advert; whether it says that the gateway is gone.

        A copy that the broker retained proves that a gateway existed, not that it is there now: a ping
        has to confirm it, or the next advert.
        """
        with self._lock:
            self._forget_kept()
            known = self._gateways.get(gateway)
            if known is None:
                if not self._make_room():
                    return False
                known = self._gateways[gateway] = _Gateway(advert)
            elif advert.boot_id in known.old_boots:
                return False
            elif advert.boot_id != known.advert.boot_id:
                if advert.state in ("lost", "disconnected"):
                    return False
                boots = [*known.old_boots, known.advert.boot_id]
                known = self._gateways[gateway] = _Gateway(advert, old_boots=boots[-_BOOTS_CAP:])
            elif advert.state not in ("lost", "disconnected"):
                if advert.sequence < known.advert.sequence and known.advert.state != "lost":
                    return False
                if advert.bundles != known.advert.bundles and _digests(advert) != _digests(known.advert):
                    known.without.clear()
            known.advert = advert
            if advert.state in ("lost", "disconnected"):
                known.fresh_until_ms = 0.0
                known.unconfirmed = False
                return True
            known.unconfirmed = retained
            if not retained:
                known.fresh_until_ms = self._clock() + self._fresh_ms
            return False

    def choose(
        self,
        digest12: str,
        first_stage: int,
        last_stage: int,
        under_way: Callable[[], Sequence[str]] = tuple,
        *,
        needed: frozenset[str] = frozenset(),
    ) -> str | None:
        """The gateway for a request; None when none would take it.

        `needed` is what the gateway must be able to unpack.
        `under_way` tells, where there is a choice, the gateways of this device's own unanswered requests,
        each once a request: the adverts do not show them yet.
        """
        with self._lock:
            takers = self._takers(digest12, first_stage, last_stage, needed)
            if len(takers) < 2:
                return takers[0] if takers else None
            able = self._random.sample(takers, 2) if len(takers) > 2 else list(takers)
            if len(takers) == 2 and self._random.random() < 0.5:
                able.reverse()
            asked = under_way()
            return min(able, key=lambda name: self._cost_ms(name, digest12, first_stage, asked.count(name)))

    def able(self, digest12: str, last_stage: int) -> Able:
        """Who would take a whole run of this bundle now; kept, as it is asked before every decision."""
        with self._lock:
            now_ms = self._clock()
            kept = self._kept.get((digest12, last_stage))
            if kept is not None and now_ms < kept.until_ms:
                return kept
            able = [
                gateway.abilities(digest12)
                for gateway in self._gateways.values()
                if self._takes(gateway, digest12, last_stage, last_stage, now_ms)
            ]
            found = Able(len(able), frozenset().union(*able), self._until_ms(now_ms))
            self._kept[digest12, last_stage] = found
            return found

    def heard(self, digest12: str) -> bool:
        """Whether any gateway with this bundle is there now, be it busy or not answering."""
        with self._lock:
            now_ms = self._clock()
            return any(
                now_ms < gateway.fresh_until_ms and gateway.bundle(digest12) is not None
                for gateway in self._gateways.values()
            )

    def answered(self, gateway: str, network_ms: float | None) -> None:
        """A reply, refusal or pong came: the gateway lives. Units: network_ms, outside the gateway."""
        with self._lock:
            known = self._gateways.get(gateway)
            if known is None:
                return
            now_ms = self._clock()
            if known.open_until_ms is not None or now_ms >= known.fresh_until_ms:
                # Who takes requests changes; that it does so for longer is found out in time.
                self._forget_kept()
            known.close_circuit()
            known.unconfirmed = False
            known.fresh_until_ms = now_ms + self._fresh_ms
            if network_ms is not None:
                before_ms = known.network_ms
                known.network_ms = (
                    network_ms if before_ms is None else before_ms + _SMOOTHING * (network_ms - before_ms)
                )

    def refused(self, gateway: str, digest12: str, status: Status, retry_after_ms: float | None) -> None:
        """The gateway answered that it will not run a request."""
        if status is Status.FAILED:
            self.missed(gateway)
            return
        self.answered(gateway, None)
        with self._lock:
            self._forget_kept()
            known = self._gateways.get(gateway)
            if known is None:
                return
            now_ms = self._clock()
            if status is Status.BUSY:
                known.busy_until_ms = now_ms + (BUSY_MS if retry_after_ms is None else retry_after_ms)
            elif status is Status.DRAINING:
                known.busy_until_ms = now_ms + DRAINING_MS
            elif status in (Status.UNKNOWN_BUNDLE, Status.DIGEST_MISMATCH):
                known.without.add(digest12)

    def missed(self, gateway: str) -> None:
        """A request or a ping was not answered in time."""
        with self._lock:
            self._forget_kept()
            known = self._gateways.get(gateway)
            if known is None:
                return
            if known.unconfirmed:
                # Nobody was heard, and nobody answers: the next live advert is proof enough.
                known.unconfirmed = known.probing = False
                return
            now_ms = self._clock()
            known.misses += 1
            if known.probing:
                known.probing = False
                known.open_for_ms = min(2.0 * known.open_for_ms, OPEN_MS[1])
                known.open_until_ms = now_ms + known.open_for_ms
            elif known.open_until_ms is None and known.misses >= MISSES_TO_OPEN:
                known.open_until_ms = now_ms + known.open_for_ms

    def probes_due(self) -> tuple[str, ...]:
        """Gateways to ping now, each told once a try: open circuits that may be tried, unconfirmed ones."""
        with self._lock:
            now_ms = self._clock()
            due = []
            for name, gateway in self._gateways.items():
                half_open = gateway.open_until_ms is not None and now_ms >= gateway.open_until_ms
                worth_it = gateway.unconfirmed or (half_open and now_ms < gateway.fresh_until_ms)
                if worth_it and gateway.advert.serving and not gateway.probing:
                    gateway.probing = True
                    due.append(name)
            return tuple(due)

    def link_lost(self) -> None:
        """What was known of who is there is old; pings under way say nothing about their gateways.

        After a broker's restart gateways come back one by one: requests sent on the strength of adverts
        from before would be lost.
        """
        with self._lock:
            self._forget_kept()
            for gateway in self._gateways.values():
                gateway.probing = False
                gateway.fresh_until_ms = 0.0

    def _takers(
        self, digest12: str, first_stage: int, last_stage: int, needed: frozenset[str]
    ) -> tuple[str, ...]:
        asked = (digest12, first_stage, last_stage, needed)
        now_ms = self._clock()
        kept = self._kept_takers.get(asked)
        if kept is None or now_ms >= kept.until_ms:
            names = [
                name
                for name, gateway in self._gateways.items()
                if self._takes(gateway, digest12, first_stage, last_stage, now_ms)
                and needed <= gateway.abilities(digest12)
            ]
            kept = self._kept_takers[asked] = _Takers(tuple(names), self._until_ms(now_ms))
        return kept.names

    def _until_ms(self, now_ms: float) -> float:
        """When time alone may change who takes what."""
        ends_ms = [
            at_ms
            for gateway in self._gateways.values()
            for at_ms in (gateway.fresh_until_ms, gateway.busy_until_ms)
            if at_ms > now_ms
        ]
        return min(ends_ms, default=inf)

    def _forget_kept(self) -> None:
        self._kept.clear()
        self._kept_takers.clear()

    def _takes(
        self, gateway: _Gateway, digest12: str, first_stage: int, last_stage: int, now_ms: float
    ) -> bool:
        if (
            now_ms >= gateway.fresh_until_ms
            or not gateway.advert.serving
            or now_ms < gateway.busy_until_ms
            or gateway.open_until_ms is not None
        ):
            return False
        bundle = gateway.bundle(digest12)
        return bundle is not None and all(
            stage in bundle.stages for stage in range(first_stage, last_stage + 1)
        )

    def _cost_ms(self, name: str, digest12: str, first_stage: int, under_way: int) -> float:
        """What a request would take there: its queue, its stages, and the way.

        Unknown counts as 0, so that a new gateway is tried.
        """
        gateway = self._gateways[name]
        bundle = gateway.bundle(digest12)
        service_ms = 0.0
        if bundle is not None:
            pairs = zip(bundle.stages, bundle.service_ms, strict=False)
            service_ms = sum(ms or 0.0 for stage, ms in pairs if stage >= first_stage)
        waiting = gateway.advert.queue_depth + under_way
        return (waiting + 1) * service_ms + (gateway.network_ms or 0.0)

    def _make_room(self) -> bool:
        if len(self._gateways) < _GATEWAYS_CAP:
            return True
        stalest = min(self._gateways, key=lambda name: self._gateways[name].fresh_until_ms)
        if self._gateways[stalest].fresh_until_ms > self._clock():
            return False
        del self._gateways[stalest]
        return True


def _digests(advert: Advert) -> set[tuple[str, tuple[int, ...]]]:
    return {(bundle.digest12, bundle.stages) for bundle in advert.bundles}
