"""How long an offload takes here and now: a distribution, given bytes and boundary.

The time of an exchange is predicted as round trip + bytes / goodput + bytes queued before it, with the
gateway's own time apart; what is kept of the past is how wrong those predictions were. The level
follows the link within one or two exchanges, the spread of past errors is the distribution. Over the
development traces its Brier score is 11 to 16 % below that of weighting past (round trip, goodput)
pairs by their age.
Only durations are used: no stamp of another machine is ever subtracted.
Source: predicting a distribution of transfer time given size, not a throughput, is the lesson of
Puffer (Yan et al., NSDI 2020); change-points as in Edgent (Li et al., TWC 2020); the rest is this
project's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import exp, inf, isfinite, log

from edgeexit.decide.cancelling import worth_cancelling
from edgeexit.decide.decision import InFlight, OffloadOption
from edgeexit.decide.goodput import Goodput
from edgeexit.decide.offload_forecast import OffloadForecast
from edgeexit.decide.probing import ProbeSchedule
from edgeexit.decide.server import ServerTimes

# Before anything was measured: a near wireless network.
START_RTT_MS = 20.0
# The round trip is the median of so many small probes: a slow transfer must not be taken for distance.
PINGS = 5
# Measured times beyond three hours are no times.
LONGEST_MS = 1e7
# The radio sleeps after about this long without traffic.
IDLE_MS = 1000.0
# Past errors widen by half after this long without an exchange, and at most threefold: knowledge ages.
STALE_MS = 10_000.0
WIDEST = 3.0
# So many sends without a reply, one after the other, close the link until a probe returns.
FAILURES_TO_CLOSE = 2
# So many refusals one after the other keep requests from the gateway for a while, twice as long each
# time: asking a busy or foreign gateway again at once helps nobody.
REFUSALS_TO_HOLD = 2
HOLD_FIRST_MS = 1000.0
HOLD_LAST_MS = 10_000.0
# A payload this much later than predicted no longer holds back probes: it may be lost.
OVERDUE_MS = 1000.0
# A payload that takes so many times what was predicted was held up for a reason of its own more often than
# by the link: another one may come through at once, and tells. Between one and four times the development
# traces hardly tell a difference.
HELD_UP = 2.0
# The way at the least is what this share of exchanges undercut. Gateways refuse what seems to be too late:
# told of the usual way, much that would still be in time; told of none at all, they serve what will be late.
# Over fleets on the development traces a quarter to a third is best.
QUICKER_SHARE = 0.3
# Downlink is told apart only for replies of at least this size; class scores are far smaller.
# Probes up to this size measure the round trip, larger ones the goodput.
SMALL_BYTES = 2048
DOWNLINK_GAIN = 0.5
# Exchanges remembered as in flight; the transport's credit window is far smaller.
IN_FLIGHT_CAP = 64
# Reasons of a refusal that came back over the link: the network worked, the gateway did not want it.
REFUSALS = frozenset(
    {
        *("malformed", "unknown_bundle", "too_late", "digest_mismatch", "too_large"),
        *("unsupported_version", "busy", "failed", "draining", "cancelled"),
    }
)
# Of those, what says nothing of the next request: it came too late, or behind others, or the device took it
# back; how long a busy gateway wants to be left alone it says itself, and the transport obeys.
OF_ONE_REQUEST = frozenset({"too_late", "busy", "cancelled"})


@dataclass(slots=True)
class _Exchange:
    option: OffloadOption
    sent_ms: float
    ahead_ms: float
    predicted_ms: float
    idle: bool
    lost: bool = False
    """What was sent after it came back before it: it may not come, and holds up nothing."""


class LinkEstimator:
    """Learns the link and the gateways behind it from exchanges, failures and probes.

    Tokens name exchanges: any number that `sent` has and `replied` or `failed` repeats; replies to
    tokens that are not known any more only say that the link lives. Times are of the device's
    monotonic clock.
    """

    __slots__ = (
        "_activity_ms",
        "_closed",
        "_connected",
        "_downlink_ms",
        "_failures",
        "_goodput",
        "_held_until_ms",
        "_hold_ms",
        "_in_flight",
        "_learnt_ms",
        "_pings",
        "_probes",
        "_refusals",
        "_rtt_ms",
        "_server",
    )

    def __init__(self) -> None:
        self._connected = False
        self._closed = False
        self._failures = 0
        self._refusals = 0
        self._hold_ms = HOLD_FIRST_MS
        self._held_until_ms = -inf
        self._rtt_ms = START_RTT_MS
        self._pings: deque[float] = deque(maxlen=PINGS)
        self._goodput = Goodput()
        self._downlink_ms = 0.0
        self._in_flight: dict[int, _Exchange] = {}
        self._server = ServerTimes()
        self._probes = ProbeSchedule()
        self._activity_ms: float | None = None
        self._learnt_ms: float | None = None

    @property
    def rtt_ms(self) -> float | None:
        """Round trip of a small message; None while nothing was measured."""
        return self._rtt_ms if self._pings else None

    @property
    def goodput_bps(self) -> float | None:
        """Uplink goodput in bits per second; None while nothing was measured."""
        goodput = self._goodput
        return 8000.0 / goodput.ms_per_byte if goodput.measured else None

    def least_way_ms(self, option: OffloadOption, now_ms: float) -> float | None:
        """What the way there and back takes at the least; None while nothing was measured."""
        if not self._pings:
            return None
        errors = self._goodput.window(idle=self._is_idle(now_ms)).ordered()
        network_ms = self._rtt_ms + self._downlink_ms + option.payload_bytes * self._goodput.ms_per_byte
        return network_ms * exp(errors[int(QUICKER_SHARE * len(errors))])

    @property
    def server(self) -> ServerTimes:
        """The gateway's own times, apart from the link's."""
        return self._server

    def connection(self, up: bool, now_ms: float) -> None:
        """Learn that the transport connected or lost its connection."""
        if up and not self._connected:
            # After a loss nothing is sent until a probe returns; at the very start there was no loss.
            self._closed = self._closed or self._activity_ms is not None
            self._probes.at_once(now_ms)
        self._connected = up
        if not up:
            self._in_flight.clear()

    def sent(self, token: int, option: OffloadOption, now_ms: float) -> None:
        """Learn that a payload was handed to the transport."""
        if len(self._in_flight) >= IN_FLIGHT_CAP:
            self._in_flight.pop(next(iter(self._in_flight)))
        self._connected = True
        ahead_ms = self._backlog_ms(now_ms)
        fixed_ms = self._rtt_ms + self._downlink_ms
        predicted_ms = fixed_ms + option.payload_bytes * self._goodput.ms_per_byte + ahead_ms
        self._in_flight[token] = _Exchange(option, now_ms, ahead_ms, predicted_ms, self._is_idle(now_ms))
        self._activity_ms = now_ms
        self._probes.payload_used(now_ms)

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
        exchange = self._in_flight.pop(token, None)
        if not 0.0 < elapsed_ms < LONGEST_MS:
            return
        self._alive(now_ms)
        self._refusals = 0
        self._hold_ms = HOLD_FIRST_MS
        self._held_until_ms = -inf
        if exchange is None:
            return
        self._overtake(exchange.sent_ms, now_ms)
        queue_ms = min(max(0.0, queue_ms), elapsed_ms) if isfinite(queue_ms) else 0.0
        compute_ms = min(max(0.0, compute_ms), elapsed_ms) if isfinite(compute_ms) else 0.0
        self._server.observe(exchange.option.boundary, queue_ms, compute_ms, now_ms, whole=whole)
        network_ms = max(0.1, elapsed_ms - queue_ms - compute_ms)
        if downlink_bytes >= SMALL_BYTES:
            extra_ms = max(0.0, network_ms - (exchange.predicted_ms - self._downlink_ms))
            # Half of what is left over is put on the reply's own way, half stays with the uplink's error.
            self._downlink_ms += DOWNLINK_GAIN * (0.5 * extra_ms - self._downlink_ms)
        self._learn(exchange, network_ms, now_ms)

    def failed(
        self,
        token: int,
        reason: str,
        now_ms: float,
        *,
        queue_ms: float | None = None,
        compute_ms: float | None = None,
    ) -> None:
        """Learn that no output will come; a reason of `REFUSALS` came back from a gateway.

        Units: queue_ms and compute_ms, what the request had cost there by then, None where the gateway does
        not say. What was "cancelled" without them never left: nothing is learnt of it.
        """
        exchange = self._in_flight.pop(token, None)
        if reason == "cancelled" and queue_ms is None:
            return
        if reason in REFUSALS:
            self._alive(now_ms)
            elapsed_ms = 0.0 if exchange is None else now_ms - exchange.sent_ms
            if exchange is not None and 0.0 < elapsed_ms < LONGEST_MS:
                queue_ms = min(max(0.0, queue_ms or 0.0), elapsed_ms)
                compute_ms = min(max(0.0, compute_ms or 0.0), elapsed_ms)
                self._server.waited(queue_ms, now_ms)
                self._learn(exchange, max(0.1, elapsed_ms - queue_ms - compute_ms), now_ms)
            if reason not in OF_ONE_REQUEST:
                self._refusals += 1
                if self._refusals >= REFUSALS_TO_HOLD:
                    self._held_until_ms = now_ms + self._hold_ms
                    self._hold_ms = min(2.0 * self._hold_ms, HOLD_LAST_MS)
            return
        if exchange is not None:
            self._goodput.window(idle=exchange.idle).add(inf)
            self._learnt_ms = now_ms
        self._count_failure(now_ms)

    def worth_cancelling(
        self, in_flight: InFlight, now_ms: float, *, cancel_bytes: int, byte_price: float
    ) -> bool:
        """Whether the gateway should be told that nobody waits for this reply any more."""
        compute_ms = self._server.compute_ms(in_flight.option.boundary)
        if compute_ms is None:
            return False
        return worth_cancelling(
            self.forecast(now_ms),
            in_flight,
            round_trip_ms=self._rtt_ms,
            compute_ms=compute_ms,
            cancel_ms=cancel_bytes * self._goodput.ms_per_byte if self._goodput.measured else 0.0,
            cancel_price=cancel_bytes * byte_price,
        )

    def pinged(self, uplink_bytes: int, elapsed_ms: float, now_ms: float) -> None:
        """Learn from a probe that came back."""
        self._probes.returned(uplink_bytes, now_ms)
        if not 0.0 < elapsed_ms < LONGEST_MS or uplink_bytes < 0:
            return
        self._connected = True
        self._alive(now_ms)
        for exchange in self._in_flight.values():
            # The connection keeps order: what was sent before this probe was overtaken by its answer.
            exchange.lost = exchange.lost or exchange.sent_ms < now_ms - elapsed_ms
        if uplink_bytes <= SMALL_BYTES:
            self._pings.append(elapsed_ms)
            self._rtt_ms = sorted(self._pings)[len(self._pings) // 2]
        else:
            self._shorten(elapsed_ms, uplink_bytes * self._goodput.ms_per_byte)
            self._goodput.move(elapsed_ms - self._rtt_ms, uplink_bytes, 0.0, self._rtt_ms)
            self._learnt_ms = now_ms

    def probe_failed(self, now_ms: float) -> None:
        """Learn that a probe did not come back."""
        self._count_failure(now_ms)
        self._probes.failed(now_ms)

    def wants_probe(self, now_ms: float) -> int | None:
        """Bytes of a probe to send now, None where none is due; asking counts as sending it."""
        if not self._connected:
            return None
        for exchange in self._in_flight.values():
            if not exchange.lost and now_ms - exchange.sent_ms < exchange.predicted_ms + OVERDUE_MS:
                # A payload under way will tell more than a probe.
                return None
        return self._probes.ask(now_ms, closed=self._closed)

    def forecast(self, now_ms: float) -> OffloadForecast:
        """What is known at `now_ms`; later observations do not change it."""
        learnt_ms = self._learnt_ms
        age_ms = 0.0 if learnt_ms is None else max(0.0, now_ms - learnt_ms)
        widening = min(WIDEST, 1.0 + 0.5 * age_ms / STALE_MS)
        goodput = self._goodput
        window = goodput.window(idle=self._is_idle(now_ms))
        waiting = [exchange for exchange in self._in_flight.values() if not exchange.lost]
        censored: list[float] = []
        slowest = 1.0
        for exchange in waiting:
            overdue = (now_ms - exchange.sent_ms) / exchange.predicted_ms
            if overdue > 1.0:
                # Not back yet: at least this slow, which is a measurement too.
                censored.append(log(overdue))
                if overdue > slowest:
                    slowest = overdue
        return OffloadForecast(
            up=self._connected and not self._closed and now_ms >= self._held_until_ms,
            measured=goodput.measured or bool(self._pings),
            busy=bool(waiting),
            # Only one is sent past it: where it is the link that stands, all would stand in a queue.
            held_up=len(waiting) == 1 and slowest > HELD_UP,
            rtt_ms=self._rtt_ms,
            fixed_ms=self._rtt_ms + self._downlink_ms,
            ms_per_byte=goodput.ms_per_byte * slowest,
            backlog_ms=self._backlog_ms(now_ms) if waiting else 0.0,
            ahead_ms=waiting[-1].ahead_ms if waiting else 0.0,
            widening=widening,
            usual_ms_per_byte=goodput.usual_ms_per_byte,
            age_ms=age_ms,
            residuals=window.ordered(),
            total=window.weight,
            censored=censored,
            server=self._server.at(now_ms),
        )

    def _is_idle(self, now_ms: float) -> bool:
        return self._activity_ms is None or now_ms - self._activity_ms > IDLE_MS

    def _alive(self, now_ms: float) -> None:
        self._activity_ms = now_ms
        self._failures = 0
        self._closed = False

    def _overtake(self, sent_ms: float, now_ms: float) -> None:
        """What is overdue although a payload that was sent after it is back holds up nothing."""
        for exchange in self._in_flight.values():
            if exchange.sent_ms < sent_ms and now_ms - exchange.sent_ms > exchange.predicted_ms:
                exchange.lost = True

    def _count_failure(self, now_ms: float) -> None:
        self._failures += 1
        if self._failures >= FAILURES_TO_CLOSE and not self._closed:
            self._closed = True
            self._probes.at_once(now_ms)

    def _backlog_ms(self, now_ms: float) -> float:
        """Time until the bytes already handed over have left, at the goodput believed now."""
        free_ms = now_ms
        for exchange in self._in_flight.values():
            if exchange.lost:
                continue
            late_ms = now_ms - exchange.sent_ms - exchange.predicted_ms
            if late_ms > 0.0:
                # Overdue: expected to take half as much again as it is late.
                done_ms = now_ms + 0.5 * late_ms
            else:
                start_ms = exchange.sent_ms + exchange.ahead_ms
                done_ms = start_ms + exchange.option.payload_bytes * self._goodput.ms_per_byte
            if done_ms > free_ms:
                free_ms = done_ms
        return free_ms - now_ms

    def _learn(self, exchange: _Exchange, network_ms: float, now_ms: float) -> None:
        if exchange.lost:
            # Overtaken by others: it tells how late replies can be, not how quick the link is now.
            self._goodput.window(idle=exchange.idle).add(log(network_ms / exchange.predicted_ms))
            return
        self._learnt_ms = now_ms
        size = max(1, exchange.option.payload_bytes)
        self._shorten(network_ms, size * self._goodput.ms_per_byte + exchange.ahead_ms)
        changed = self._goodput.learn(
            network_ms,
            predicted_ms=exchange.predicted_ms,
            size=size,
            fixed_ms=self._rtt_ms + self._downlink_ms,
            ahead_ms=exchange.ahead_ms,
            idle=exchange.idle,
        )
        if changed:
            self._probes.at_once(now_ms)

    def _shorten(self, measured_ms: float, transfer_ms: float) -> None:
        """Take a whole exchange that was too quick for the round trip believed as a bound of it."""
        if not self._goodput.measured:
            # A first guess of the goodput says nothing about what of the exchange was transfer.
            transfer_ms = 0.0
        if measured_ms < 1.5 * self._rtt_ms and measured_ms - self._rtt_ms < 0.5 * transfer_ms:
            self._pings.append(max(0.5 * measured_ms, measured_ms - transfer_ms))
            self._rtt_ms = min(self._rtt_ms, self._pings[-1])
