"""The link as the published baselines see it: averages of bandwidth, round trip and server slowdown."""

from __future__ import annotations

from edgeexit.decide.learner import Observation, Pinged, Replied
from edgeexit.decide.policies.network_profile import NetworkProfile

# Weight of the newest measurement in the baselines' averages; 1 keeps only the last one.
NEWEST_WEIGHT = 0.3
# Before anything was measured: the same first guess that the recommended estimator begins with.
START_RTT_MS = 20.0
START_BYTES_PER_MS = 1000.0
# Probes up to this size measure the round trip, larger ones the bandwidth.
PING_BYTES = 1024
# Transfers shorter than this say nothing about bandwidth.
SHORTEST_TRANSFER_MS = 0.5


class LinkAverages:
    """Exponentially weighted averages; learns from replies and probes alone."""

    __slots__ = ("_profile", "_weight", "bytes_per_ms", "fresh_bytes_per_ms", "load", "rtt_ms")

    def __init__(self, profile: NetworkProfile, *, newest_weight: float = NEWEST_WEIGHT) -> None:
        self._profile = profile
        self._weight = newest_weight
        self.rtt_ms = START_RTT_MS
        self.bytes_per_ms = START_BYTES_PER_MS
        self.load = 1.0
        """Server time measured over server time profiled."""
        self.fresh_bytes_per_ms: float | None = None
        """The last single measurement of bandwidth; None before the first."""

    def learn(self, observation: Observation) -> bool:
        """Take an observation; True when it measured the bandwidth."""
        if isinstance(observation, Pinged):
            if observation.uplink_bytes <= PING_BYTES:
                self.rtt_ms += self._weight * (observation.elapsed_ms - self.rtt_ms)
                return False
            self._transfer(observation.uplink_bytes, observation.elapsed_ms)
            return True
        if isinstance(observation, Replied):
            service_ms = observation.queue_ms + observation.compute_ms
            profiled_ms = self._profile.back_ms(observation.option.boundary)
            if profiled_ms > 0.0:
                self.load += self._weight * (service_ms / profiled_ms - self.load)
            self._transfer(observation.option.payload_bytes, observation.elapsed_ms - service_ms)
            return True
        return False

    def transfer_ms(self, payload_bytes: int) -> float:
        """Mean time of moving bytes there and the answer back."""
        return self.rtt_ms + payload_bytes / self.bytes_per_ms

    def remote_ms(self, cut: int) -> float:
        """Predicted time from the end of the local part to the answer, for a cut that may be sent."""
        payload = self._profile.payloads[cut]
        payload_bytes = 0 if payload is None else payload.payload_bytes
        encode_ms = 0.0 if payload is None else payload.encode_ms
        return encode_ms + self.transfer_ms(payload_bytes) + self._profile.back_ms(cut) * self.load

    def _transfer(self, payload_bytes: int, network_ms: float) -> None:
        fresh = payload_bytes / max(SHORTEST_TRANSFER_MS, network_ms - self.rtt_ms)
        self.fresh_bytes_per_ms = fresh
        self.bytes_per_ms += self._weight * (fresh - self.bytes_per_ms)
