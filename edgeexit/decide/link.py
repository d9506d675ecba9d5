"""How long an offload takes here and now: a distribution, given bytes and boundary.

The time of an exchange is predicted as round trip + bytes / goodput + bytes queued before it, with the
gateway's own time apart; what is kept of the past is how wrong those predictions were. The level
follows the link within one or two exchanges, the spread of past errors is the distribution.
Only durations are used: no stamp of another machine is ever subtracted.
Source: predicting a distribution of transfer time given size, not a throughput, is the lesson of
Puffer (Yan et al., NSDI 2020); windowed extremes after idle are BBR's; the rest is this project's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, exp, inf, isfinite, log, sqrt

from edgeexit.decide.decision import InFlight, OffloadOption
from edgeexit.decide.residuals import ResidualWindow
from edgeexit.decide.server import ServerTimes

# Before anything was measured: a near wireless network and 8 Mbit/s, wide enough to be wrong.
START_RTT_MS = 20.0
START_MS_PER_BYTE = 1.0e-3
# The round trip is the median of so many small probes: a slow transfer must not be taken for distance.
PINGS = 5
# How far one exchange moves the logarithm of goodput: mobile goodput changes within a second.
GOODPUT_GAIN = 0.7
# Round trips vary by about this share; transfers shorter than that are lost in it.
RTT_NOISE = 0.3
# One exchange never counts for more than a factor of e^1.5.
ERROR_CLIP = 1.5
# Transfers of less than this are round trip, not goodput.
SHORTEST_TRANSFER_MS = 0.5
# The radio sleeps after about this long without traffic.
IDLE_MS = 1000.0
# Pairs with the tag of now are used once there are this many.
TAG_MINIMUM = 5
# Past errors widen by half after this long without an exchange: what is known grows old.
STALE_MS = 10_000.0
# Mobile goodput may recover at any moment without telling: while nothing is queued, the weight of one
# exchange says that the goodput may be anything around its level (a factor of e either way), but the
# round trip is never much shorter than it was. Without it a slow spell would be learnt for good.
RECOVERY_WEIGHT = 1.0
RECOVERY_SPREAD = 1.0
RTT_LEAST = 0.85
RECOVERED_BELOW = 0.2
SQRT2 = sqrt(2.0)
# CUSUM on errors in standard deviations: shifts of one deviation are found in about six exchanges.
CUSUM_DRIFT = 0.5
CUSUM_ALARM = 4.0
CUSUM_SPREAD_FLOOR = 0.2
# So many sends without a reply, one after the other, close the link until a probe returns.
FAILURES_TO_CLOSE = 2
# Bytes of a probe of the round trip, and of one of the goodput where no payload was ever sent.
PING_BYTES = 64
PAYLOAD_PROBE_BYTES = 4096
PAYLOAD_PROBE_CAP = 16_384
# Without an exchange for this long a probe is due; it backs off while the link is closed.
PROBE_AFTER_MS = 5000.0
BACKOFF_FIRST_MS = 1000.0
BACKOFF_LAST_MS = 10_000.0
# A probe without an end is forgotten after this long, so that a lost report cannot stop probing.
PROBE_PATIENCE_MS = 15_000.0
# Downlink is told apart only for replies of at least this size; class scores are far smaller.
DOWNLINK_BYTES = 2048
# Exchanges remembered as in flight; the transport's credit window is far smaller.
IN_FLIGHT_CAP = 64

# Reasons of a refusal that came back over the link: the network worked, the gateway did not want it.
ANSWERED_REASONS = frozenset({"busy", "too_late", "unknown_bundle", "refused"})


@dataclass(slots=True)
class _Exchange:
    option: OffloadOption
    sent_ms: float
    ahead_ms: float
    predicted_ms: float
    idle: bool


class OffloadForecast:
    """Offload times as known at one moment; keeps the LinkForecast port."""

    __slots__ = (
        "_ahead_ms",
        "_backlog_ms",
        "_busy",
        "_censored",
        "_downlink_ms",
        "_measured",
        "_ms_per_byte",
        "_residuals",
        "_rtt_ms",
        "_server",
        "_total",
        "_up",
        "_widening",
    )

    def __init__(
        self,
        *,
        up: bool,
        measured: bool,
        rtt_ms: float,
        ms_per_byte: float,
        downlink_ms: float,
        backlog_ms: float,
        ahead_ms: float,
        widening: float,
        residuals: Sequence[float],
        total: float,
        censored: Sequence[float],
        server: ServerTimes,
        busy: bool,
    ) -> None:
        self._up = up
        self._busy = busy
        self._measured = measured
        self._rtt_ms = rtt_ms
        self._ms_per_byte = ms_per_byte
        self._downlink_ms = downlink_ms
        self._backlog_ms = backlog_ms
        self._ahead_ms = ahead_ms
        self._widening = widening
        self._residuals = residuals
        self._total = total
        self._censored = censored
        self._server = server

    @property
    def up(self) -> bool:
        """Whether anything may be sent now."""
        return self._up

    def probability_within(self, option: OffloadOption, limit_ms: float) -> float:
        """Probability that an answer to `option`, sent now, is here within `limit_ms`."""
        if not (self._up and limit_ms > 0.0):
            return 0.0
        encode_ms = option.encode_ms
        # Bytes that are still queued drain while the payload is being encoded.
        start_ms = self._backlog_ms if self._backlog_ms > encode_ms else encode_ms
        predicted = self._rtt_ms + self._downlink_ms + option.payload_bytes * self._ms_per_byte
        network_ms = predicted + (start_ms - encode_ms)
        left_ms = limit_ms - encode_ms
        typical_ms, slow_ms = self._server.typical_and_slow_ms(option.boundary)
        # Nine in ten requests see the typical service time, one in ten the slow one.
        within = 0.9 * self._within(left_ms - typical_ms, network_ms, censor=True)
        within += 0.1 * self._within(left_ms - slow_ms, network_ms, censor=True)
        if not self._busy and within < RECOVERED_BELOW:
            recovered_ms = left_ms - typical_ms - RTT_LEAST * self._rtt_ms
            if recovered_ms > 0.0:
                standard = log(recovered_ms / (network_ms - self._rtt_ms + SHORTEST_TRANSFER_MS))
                hope = RECOVERY_WEIGHT * 0.5 * erfc(-standard / (RECOVERY_SPREAD * SQRT2))
                within += hope / (self._total + RECOVERY_WEIGHT)
        return within

    def reply_probability(self, in_flight: InFlight, limit_ms: float) -> float:
        """Probability that the reply to a payload already in flight comes within `limit_ms` from now."""
        if not limit_ms > 0.0:
            return 0.0
        option = in_flight.option
        network_ms = self._rtt_ms + self._downlink_ms + option.payload_bytes * self._ms_per_byte
        network_ms += self._ahead_ms
        server_ms = self._server.typical_and_slow_ms(option.boundary)[0]
        waited_ms = in_flight.waited_ms
        already = self._within(waited_ms - server_ms, network_ms, censor=False)
        then = self._within(waited_ms + limit_ms - server_ms, network_ms, censor=False)
        # Given that it has not come yet; the prior weight of lost replies keeps the divisor above 0.
        return (then - already) / (1.0 - already) if then > already else 0.0

    def median_ms(self, option: OffloadOption) -> float | None:
        """Median time until an answer to `option`; None while nothing was ever measured."""
        if not self._measured:
            return None
        residuals = self._residuals
        middle = residuals[len(residuals) // 2] if residuals else 0.0
        network_ms = self._rtt_ms + self._downlink_ms + option.payload_bytes * self._ms_per_byte
        waiting_ms = max(self._backlog_ms, option.encode_ms)
        server_ms = self._server.typical_and_slow_ms(option.boundary)[0]
        return waiting_ms + network_ms * exp(min(middle, 10.0)) + server_ms

    def _within(self, limit_ms: float, predicted_ms: float, *, censor: bool) -> float:
        if not limit_ms > 0.0:
            return 0.0
        error = log(limit_ms / predicted_ms) / self._widening
        total = self._total
        if censor:
            for bound in self._censored:
                if bound >= error:
                    total += 1.0
        return bisect_right(self._residuals, error) / total


class LinkEstimator:
    """Learns the link and the gateways behind it from exchanges, failures and probes.

    Tokens name exchanges: any number that `sent` has and `replied` or `failed` repeats; replies to
    tokens that are not known any more are ignored. Times are the device's monotonic clock.
    Units: payload_probe_bytes, size of a goodput probe while no payload was ever sent.
    """

    __slots__ = (
        "_activity_ms",
        "_backoff_ms",
        "_busy",
        "_closed",
        "_connected",
        "_cusum_down",
        "_cusum_up",
        "_downlink_ms",
        "_failures",
        "_idle",
        "_in_flight",
        "_learnt_ms",
        "_measured_goodput",
        "_measured_rtt",
        "_ms_per_byte",
        "_payload_bytes",
        "_pings",
        "_probe_asked_ms",
        "_probe_due_ms",
        "_probe_payload",
        "_recent",
        "_rtt_ms",
        "_server",
        "_spread",
    )

    def __init__(self, *, payload_probe_bytes: int = PAYLOAD_PROBE_BYTES) -> None:
        self._connected = False
        self._closed = False
        self._failures = 0
        self._rtt_ms = START_RTT_MS
        self._ms_per_byte = START_MS_PER_BYTE
        self._downlink_ms = 0.0
        self._measured_rtt = False
        self._pings: deque[float] = deque(maxlen=PINGS)
        self._measured_goodput = False
        self._busy = ResidualWindow()
        self._idle = ResidualWindow()
        self._in_flight: dict[int, _Exchange] = {}
        self._server = ServerTimes()
        self._activity_ms: float | None = None
        self._learnt_ms: float | None = None
        self._spread = 0.5
        self._cusum_up = 0.0
        self._cusum_down = 0.0
        self._recent: deque[float] = deque(maxlen=3)
        self._payload_bytes = payload_probe_bytes
        self._probe_asked_ms: float | None = None
        self._probe_due_ms: float | None = None
        self._probe_payload = True
        self._backoff_ms = BACKOFF_FIRST_MS

    @property
    def rtt_ms(self) -> float | None:
        """Round trip of a small message; None while nothing was measured."""
        return self._rtt_ms if self._measured_rtt else None

    @property
    def goodput_bps(self) -> float | None:
        """Uplink goodput in bits per second; None while nothing was measured."""
        return 8000.0 / self._ms_per_byte if self._measured_goodput else None

    @property
    def server(self) -> ServerTimes:
        """The gateway's own times, apart from the link's."""
        return self._server

    def connection(self, up: bool, now_ms: float) -> None:
        """Learn that the transport connected or lost its connection."""
        if up and not self._connected:
            # After a loss nothing is sent until a probe returns; at the very start there is no loss.
            self._closed = self._closed or self._activity_ms is not None
            self._probe_due_ms = now_ms
            self._probe_asked_ms = None
            self._probe_payload = True
            self._backoff_ms = BACKOFF_FIRST_MS
        self._connected = up
        if not up:
            self._in_flight.clear()

    def sent(self, token: int, option: OffloadOption, now_ms: float) -> None:
        """Learn that a payload was handed to the transport."""
        if len(self._in_flight) >= IN_FLIGHT_CAP:
            self._in_flight.pop(next(iter(self._in_flight)))
        self._connected = True
        backlog_ms = self._backlog_ms(now_ms)
        network_ms = self._rtt_ms + self._downlink_ms + option.payload_bytes * self._ms_per_byte
        idle = self._is_idle(now_ms)
        self._in_flight[token] = _Exchange(option, now_ms, backlog_ms, network_ms + backlog_ms, idle)
        self._activity_ms = now_ms
        self._payload_bytes = option.payload_bytes

    def replied(
        self,
        token: int,
        elapsed_ms: float,
        queue_ms: float,
        compute_ms: float,
        downlink_bytes: int,
        now_ms: float,
    ) -> None:
        """Learn from a reply, in time or late."""
        exchange = self._in_flight.pop(token, None)
        if not (isfinite(elapsed_ms) and elapsed_ms > 0.0):
            return
        self._alive(now_ms)
        if exchange is None:
            return
        queue_ms = min(max(0.0, queue_ms), elapsed_ms) if isfinite(queue_ms) else 0.0
        compute_ms = min(max(0.0, compute_ms), elapsed_ms) if isfinite(compute_ms) else 0.0
        self._server.observe(exchange.option.boundary, queue_ms, compute_ms)
        network_ms = max(0.1, elapsed_ms - queue_ms - compute_ms)
        if downlink_bytes >= DOWNLINK_BYTES:
            self._learn_downlink(exchange, network_ms)
        self._learn(exchange, network_ms, now_ms)

    def failed(self, token: int, reason: str, now_ms: float) -> None:
        """Learn that no reply will come, or that the gateway refused (`ANSWERED_REASONS`)."""
        exchange = self._in_flight.pop(token, None)
        if reason == "cancelled":
            return
        if reason in ANSWERED_REASONS:
            self._activity_ms = now_ms
            if exchange is not None and now_ms > exchange.sent_ms:
                self._learn(exchange, now_ms - exchange.sent_ms, now_ms)
            if reason == "too_late":
                self._failures = 0
                return
        elif exchange is not None:
            window = self._idle if exchange.idle else self._busy
            window.add(inf)
            self._learnt_ms = now_ms
        self._failures += 1
        if self._failures >= FAILURES_TO_CLOSE and not self._closed:
            self._closed = True
            self._probe_payload = True
            self._backoff_ms = BACKOFF_FIRST_MS
            self._probe_due_ms = now_ms

    def pinged(self, uplink_bytes: int, elapsed_ms: float, now_ms: float) -> None:
        """Learn from a probe that came back."""
        self._probe_asked_ms = None
        if not (isfinite(elapsed_ms) and elapsed_ms > 0.0) or uplink_bytes < 0:
            return
        self._connected = True
        self._alive(now_ms)
        if uplink_bytes <= DOWNLINK_BYTES:
            self._pings.append(elapsed_ms)
            self._rtt_ms = sorted(self._pings)[len(self._pings) // 2]
            self._measured_rtt = True
        else:
            self._move(elapsed_ms, uplink_bytes, 0.0)
        # A small probe is followed by one of payload size where the goodput is not known (any more).
        self._probe_due_ms = now_ms if self._probe_payload else now_ms + PROBE_AFTER_MS
        if uplink_bytes > DOWNLINK_BYTES:
            self._probe_payload = False
            self._learnt_ms = now_ms
            self._probe_due_ms = now_ms + PROBE_AFTER_MS

    def probe_failed(self, now_ms: float) -> None:
        """Learn that a probe did not come back."""
        self._probe_asked_ms = None
        self._failures += 1
        if self._failures >= FAILURES_TO_CLOSE:
            self._closed = True
        self._probe_due_ms = now_ms + self._backoff_ms
        self._backoff_ms = min(2.0 * self._backoff_ms, BACKOFF_LAST_MS)

    def wants_probe(self, now_ms: float) -> int | None:
        """Bytes of a probe to send now, None where none is due; asking counts as sending it."""
        if not self._connected:
            return None
        asked_ms = self._probe_asked_ms
        if asked_ms is not None and now_ms - asked_ms < PROBE_PATIENCE_MS:
            return None
        if self._closed:
            if self._probe_due_ms is not None and now_ms < self._probe_due_ms:
                return None
            self._probe_asked_ms = now_ms
            return PING_BYTES
        if self._in_flight:
            return None
        due_ms = self._probe_due_ms
        if due_ms is None or self._activity_ms is None:
            due_ms = now_ms if self._activity_ms is None else self._activity_ms + PROBE_AFTER_MS
        elif not self._probe_payload:
            due_ms = max(due_ms, self._activity_ms + PROBE_AFTER_MS)
        if now_ms < due_ms:
            return None
        self._probe_asked_ms = now_ms
        if self._measured_rtt and self._probe_payload:
            return min(self._payload_bytes, PAYLOAD_PROBE_CAP)
        # The next one, if nothing was sent until then, measures the goodput again.
        self._probe_payload = True
        return PING_BYTES

    def forecast(self, now_ms: float) -> OffloadForecast:
        """What is known at `now_ms`; later observations do not change it."""
        idle = self._is_idle(now_ms)
        window = self._idle if idle and self._idle.count >= TAG_MINIMUM else self._busy
        learnt_ms = self._learnt_ms
        widening = 1.0
        if learnt_ms is not None and now_ms > learnt_ms:
            widening += 0.5 * min(4.0, (now_ms - learnt_ms) / STALE_MS)
        censored: list[float] = []
        slowest = 1.0
        ahead_ms = 0.0
        for exchange in self._in_flight.values():
            waited_ms = now_ms - exchange.sent_ms
            ahead_ms = exchange.ahead_ms
            if waited_ms > exchange.predicted_ms:
                bound = log(waited_ms / exchange.predicted_ms)
                censored.append(bound)
                slowest = max(slowest, waited_ms / exchange.predicted_ms)
        return OffloadForecast(
            up=self._connected and not self._closed,
            measured=self._measured_goodput or self._measured_rtt,
            rtt_ms=self._rtt_ms,
            ms_per_byte=self._ms_per_byte * slowest,
            downlink_ms=self._downlink_ms,
            backlog_ms=self._backlog_ms(now_ms),
            ahead_ms=ahead_ms,
            widening=widening,
            residuals=window.ordered(),
            total=window.weight,
            censored=censored,
            server=self._server,
            busy=bool(self._in_flight),
        )

    def _is_idle(self, now_ms: float) -> bool:
        return self._activity_ms is None or now_ms - self._activity_ms > IDLE_MS

    def _alive(self, now_ms: float) -> None:
        self._activity_ms = now_ms
        self._failures = 0
        self._closed = False
        self._backoff_ms = BACKOFF_FIRST_MS

    def _backlog_ms(self, now_ms: float) -> float:
        """Time until the bytes already handed over have left, at the goodput believed now."""
        free_ms = now_ms
        for exchange in self._in_flight.values():
            start_ms = exchange.sent_ms + exchange.ahead_ms
            done_ms = start_ms + exchange.option.payload_bytes * self._ms_per_byte
            waited_ms = now_ms - exchange.sent_ms
            if waited_ms > exchange.predicted_ms:
                # Overdue: it has as much again before it, in proportion to what it took so far.
                done_ms = now_ms + 0.5 * (waited_ms - exchange.predicted_ms)
            if done_ms > free_ms:
                free_ms = done_ms
        return free_ms - now_ms

    def _learn(self, exchange: _Exchange, network_ms: float, now_ms: float) -> None:
        error = log(network_ms / exchange.predicted_ms)
        window = self._idle if exchange.idle else self._busy
        window.add(error)
        # A radio that had to wake says little about the goodput: take off what waking usually costs.
        usual = window.middle() if exchange.idle and self._idle.count >= TAG_MINIMUM else 0.0
        self._learnt_ms = now_ms
        size = exchange.option.payload_bytes
        self._probe_payload = False
        self._probe_due_ms = None
        self._move(network_ms / exp(max(0.0, usual)), max(1, size), exchange.ahead_ms)
        self._watch(error - usual, now_ms)

    def _move(self, measured_ms: float, size: int, ahead_ms: float) -> None:
        """Move the goodput towards what one exchange measured, the more the less of it was round trip."""
        predicted_ms = size * self._ms_per_byte + ahead_ms
        transfer_ms = measured_ms - self._rtt_ms - self._downlink_ms
        if transfer_ms < 0.5 * predicted_ms and measured_ms < 1.5 * self._rtt_ms:
            # Too quick for this round trip: it is no longer than what this exchange leaves for it.
            self._pings.append(max(0.5 * measured_ms, measured_ms - predicted_ms))
            self._rtt_ms = min(self._rtt_ms, self._pings[-1])
            transfer_ms = measured_ms - self._rtt_ms - self._downlink_ms
        transfer_ms = max(SHORTEST_TRANSFER_MS, transfer_ms)
        if not self._measured_goodput:
            self._ms_per_byte = max(SHORTEST_TRANSFER_MS, transfer_ms - ahead_ms) / size
            self._measured_goodput = True
            return
        error = max(-ERROR_CLIP, min(ERROR_CLIP, log(transfer_ms / predicted_ms)))
        longer_ms = max(transfer_ms, predicted_ms)
        share = longer_ms / (longer_ms + RTT_NOISE * self._rtt_ms)
        self._ms_per_byte *= exp(GOODPUT_GAIN * share * error)

    def _learn_downlink(self, exchange: _Exchange, network_ms: float) -> None:
        up_ms = self._rtt_ms + exchange.option.payload_bytes * self._ms_per_byte + exchange.ahead_ms
        extra_ms = max(0.0, network_ms - up_ms)
        # Half of what is left over is put on the reply's own way, half stays with the uplink's error.
        self._downlink_ms += GOODPUT_GAIN * (0.5 * extra_ms - self._downlink_ms)

    def _watch(self, error: float, now_ms: float) -> None:
        """Two-sided CUSUM on standardised errors; on alarm forget the past and ask for a probe."""
        self._recent.append(error)
        standard = error / max(CUSUM_SPREAD_FLOOR, self._spread)
        self._spread += 0.1 * (min(abs(error), 2.0) * 1.25 - self._spread)
        self._cusum_up = max(0.0, self._cusum_up + standard - CUSUM_DRIFT)
        self._cusum_down = max(0.0, self._cusum_down - standard - CUSUM_DRIFT)
        if max(self._cusum_up, self._cusum_down) > CUSUM_ALARM:
            self._cusum_up = self._cusum_down = 0.0
            self._busy.keep_last(3)
            self._idle.keep_last(3)
            self._probe_payload = True
            self._probe_due_ms = now_ms
