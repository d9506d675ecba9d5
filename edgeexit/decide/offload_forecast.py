"""Offload times as known at one moment: the forecast that the link estimator gives to policies."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import erfc, exp, log, sqrt

from edgeexit.decide.decision import InFlight, OffloadOption
from edgeexit.decide.goodput import SHORTEST_TRANSFER_MS
from edgeexit.decide.server import ServiceTimes

# Shares of requests that see the quick service time (of its quickest tenth), the typical one, and the slow
# one (of its slowest tenth). A queue that is long as a rule is short now and then.
QUICK_SHARE = 0.1
TYPICAL_SHARE = 0.8
SLOW_SHARE = 0.1
# Mobile goodput may recover at any moment without telling: while nothing is queued, the weight of one
# exchange, and of one more for each second since the last, says that the goodput may be anything around
# its level or its usual one (a factor of e either way), but the round trip is never much shorter than it
# was. Without it a slow spell would be learnt for good. The weight of one exchange says so, too, beside a
# single payload that is held up: a lost packet or a slow request is nothing to the next one.
RECOVERY_WEIGHT = 1.0
RECOVERY_WEIGHT_A_SECOND = 1.0
RECOVERY_SPREAD = 1.0
RTT_LEAST = 0.85
# A request at a gateway with a queue makes those behind it wait. What they lose by it, in quality, for a
# queue as long as the request's own time, and the most it is taken for: between half and twice these the
# fleets over development traces hardly tell a difference, five times as much keeps too many at home.
CROWD_PRICE = 0.001
CROWD_MOST = 2.0

_SQRT2 = sqrt(2.0)


class OffloadForecast:
    """What is known of the link and the gateways at one moment; keeps the LinkForecast port.

    Units: fixed_ms, round trip and the reply's own way; backlog_ms, until bytes handed over before have
    left; ahead_ms, the same when the payload in flight was sent; usual_ms_per_byte, of the time before a
    slow spell; residuals and censored, logarithms of measured over predicted, sorted; censored ones are
    of payloads in flight that are overdue, which took at least that long; widening, factor on those
    logarithms; age_ms, since the last exchange. `busy` says that something is in flight, `held_up` that it
    is one payload that may be late for a reason of its own.
    """

    __slots__ = (
        "_ahead_ms",
        "_backlog_ms",
        "_censored",
        "_fixed_ms",
        "_hope_weight",
        "_measured",
        "_ms_per_byte",
        "_residuals",
        "_rtt_ms",
        "_server",
        "_total",
        "_up",
        "_usual_ms_per_byte",
        "_widening",
    )

    def __init__(
        self,
        *,
        up: bool,
        measured: bool,
        busy: bool,
        held_up: bool,
        rtt_ms: float,
        fixed_ms: float,
        ms_per_byte: float,
        backlog_ms: float,
        ahead_ms: float,
        widening: float,
        usual_ms_per_byte: float,
        age_ms: float,
        residuals: Sequence[float],
        total: float,
        censored: Sequence[float],
        server: ServiceTimes,
    ) -> None:
        self._up = up
        self._measured = measured
        self._rtt_ms = rtt_ms
        self._fixed_ms = fixed_ms
        self._ms_per_byte = ms_per_byte
        self._backlog_ms = backlog_ms
        self._ahead_ms = ahead_ms
        self._widening = widening
        self._usual_ms_per_byte = min(usual_ms_per_byte, ms_per_byte)
        # Hope takes its weight from what was measured, so that both together are a probability.
        self._hope_weight = RECOVERY_WEIGHT if held_up else 0.0
        if not busy:
            self._hope_weight = RECOVERY_WEIGHT + RECOVERY_WEIGHT_A_SECOND * age_ms / 1000.0
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
        encode_ms = option.encode_ms
        quick_ms, typical_ms, slow_ms = self._server.service_ms(option.boundary)
        left_ms = limit_ms - encode_ms - quick_ms
        if not (self._up and left_ms > 0.0):
            return 0.0
        network_ms = clear_ms = self._fixed_ms + option.payload_bytes * self._ms_per_byte
        if self._backlog_ms > encode_ms:
            # Bytes that are still queued drain while the payload is being encoded.
            network_ms += self._backlog_ms - encode_ms
        chance = QUICK_SHARE * self._within(left_ms, network_ms)
        chance += TYPICAL_SHARE * self._within(left_ms + quick_ms - typical_ms, network_ms)
        chance += SLOW_SHARE * self._within(left_ms + quick_ms - slow_ms, network_ms)
        if self._hope_weight > 0.0:
            slower_ms = option.payload_bytes * (self._ms_per_byte - self._usual_ms_per_byte)
            chance += self._hope(left_ms, clear_ms - slower_ms)
        return chance

    def reply_probability(self, in_flight: InFlight, limit_ms: float) -> float:
        """Probability that the reply to a payload already in flight comes within `limit_ms` from now."""
        if not limit_ms > 0.0:
            return 0.0
        option = in_flight.option
        network_ms = self._fixed_ms + option.payload_bytes * self._ms_per_byte + self._ahead_ms
        quick_ms, typical_ms, slow_ms = self._server.service_ms(option.boundary)
        already = then = 0.0
        for share, server_ms in ((QUICK_SHARE, quick_ms), (TYPICAL_SHARE, typical_ms), (SLOW_SHARE, slow_ms)):
            waited_ms = in_flight.waited_ms - server_ms
            # The payload may itself be among the overdue ones, which must not count against it.
            already += share * self._share(waited_ms, network_ms)
            then += share * self._share(waited_ms + limit_ms, network_ms)
        # Given that it has not come yet; the prior weight of lost replies keeps the divisor above 0.
        return (then - already) / (1.0 - already) if then > already else 0.0

    def median_ms(self, option: OffloadOption) -> float | None:
        """Median time until an answer to `option`; None while nothing was ever measured."""
        if not self._measured:
            return None
        middle = self._residuals[len(self._residuals) // 2]
        network_ms = self._fixed_ms + option.payload_bytes * self._ms_per_byte
        server_ms = self._server.service_ms(option.boundary)[1]
        # A median error of infinity (lost replies) is shown as a very long time instead.
        return max(self._backlog_ms, option.encode_ms) + network_ms * exp(min(middle, 10.0)) + server_ms

    def request_price(self, option: OffloadOption) -> float:
        """What others at the gateways lose by one more request; 0 where usually nobody waits."""
        queue_ms = self._server.queue_ms[1]
        if queue_ms <= 0.0:
            return 0.0
        own_ms = self._server.service_ms(option.boundary)[1] - queue_ms
        return CROWD_PRICE * (CROWD_MOST if queue_ms >= CROWD_MOST * own_ms else queue_ms / own_ms)

    def _within(self, limit_ms: float, predicted_ms: float) -> float:
        if not limit_ms > 0.0:
            return 0.0
        error = log(limit_ms / predicted_ms) / self._widening
        total = self._total
        for bound in self._censored:
            if bound >= error:
                total += 1.0
        return bisect_right(self._residuals, error) / (total + self._hope_weight)

    def _share(self, limit_ms: float, predicted_ms: float) -> float:
        if not limit_ms > 0.0:
            return 0.0
        return bisect_right(self._residuals, log(limit_ms / predicted_ms) / self._widening) / self._total

    def _hope(self, left_ms: float, network_ms: float) -> float:
        recovered_ms = left_ms - RTT_LEAST * self._rtt_ms
        if recovered_ms <= 0.0:
            return 0.0
        standard = log(recovered_ms / (network_ms - self._rtt_ms + SHORTEST_TRANSFER_MS))
        chance = 0.5 * erfc(-standard / (RECOVERY_SPREAD * _SQRT2))
        return self._hope_weight * chance / (self._total + self._hope_weight)
