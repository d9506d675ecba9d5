"""A replayed device's side of the link: what it sends, what comes back, and what it learns of both."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

from edgeexit.decide.decision import InFlight, LinkForecast, OffloadOption
from edgeexit.decide.learner import Failed, Learner, Observation, Pinged, Replied, Sent
from edgeexit.replay.controller import OffloadEstimator
from edgeexit.replay.outages import Outage, OutageKind
from edgeexit.replay.pool import GatewayPool, PoolAnswer, PoolRequest, Schedule
from edgeexit.replay.world import ATTEMPTS, World
from edgeexit.transport.admission import Refusal, time_for_gateway
from edgeexit.transport.frames import CANCEL_BYTES
from edgeexit.transport.status import Status

# The transport's own bounds, which a replay must share: how long after its deadline a reply is still
# waited for, how long a ping is, how many requests hold a place until reply or deadline, and after how
# long without an advert a gateway counts as silent; adverts come once a second.
LATE_MS = 5000.0
PING_TIME_OUT_MS = 3000.0
WINDOW = 2
ADVERT_FRESH_MS = 3000.0
NEXT_ADVERT_MS = 500.0
# A whole reply of ten class scores on the wire.
REPLY_BYTES = 256
# How a flight ends that was taken back.
CANCELLED = "cancelled"


class Flight:
    """One payload on its way.

    Units: due_ms, when its answer stops being worth anything; handed_ms, when it was encoded and handed
    to the network; one_way_ms, its time through the network; queue_ms and service_ms, of the gateway, once
    served.
    `exit` is the one that answered, None before. `request` is what gateways with a queue have of it.
    """

    __slots__ = (
        "due_ms",
        "exit",
        "frame",
        "handed_ms",
        "one_way_ms",
        "option",
        "queue_ms",
        "request",
        "sent_ms",
        "service_ms",
        "token",
    )

    def __init__(self, token: int, frame: int, option: OffloadOption, sent_ms: float, due_ms: float) -> None:
        self.due_ms = due_ms
        self.token = token
        self.frame = frame
        self.option = option
        self.sent_ms = sent_ms
        self.handed_ms = sent_ms + option.encode_ms
        self.queue_ms = 0.0
        self.service_ms = 0.0
        self.one_way_ms = 0.0
        self.request: PoolRequest | None = None
        self.exit: int | None = None


Ended = Callable[[float, Flight, str | None], None]
"""Called the moment a flight ends, with the time and why it failed, None for a reply."""


class DeviceLink:
    """Moves payloads and probes through the world; tells the estimator when the loop looks.

    A device without a transport has no estimator, and its link is never up.
    """

    def __init__(
        self,
        world: World,
        estimator: OffloadEstimator | None,
        learner: Learner | None,
        schedule: Schedule,
        pool: GatewayPool | None,
        ended: Ended,
    ) -> None:
        self._world = world
        self._estimator = estimator
        self._learner = learner
        self._schedule = schedule
        self._pool = pool
        self._asker = "" if pool is None else pool.new_asker()
        self._busy_until_ms = -inf
        self._ended = ended
        self._uplink = world.new_uplink()
        self._wakes_after_ms = world.scenario.delay.wakes_after_ms
        self._envelope_bytes = world.scenario.profile.envelope_bytes
        self._down = 0
        self._used_ms = -inf
        self._tokens = 0
        self._in_flight: dict[int, Flight] = {}
        self._landed: deque[tuple[float, Flight, str | None]] = deque()
        self._probe: int | None = None
        self._probe_landed: deque[tuple[float, int, float | None]] = deque()
        self.up = estimator is not None
        self.probes = 0
        self.probe_bytes = 0

    def begin(self) -> None:
        """Connect, and plan the connection's ups and downs."""
        if self._estimator is None:
            return
        self._estimator.connection(True, 0.0)
        for outage in self._world.scenario.outages:
            if outage.told and outage.noticed_ms is not None:
                self._schedule(outage.start_ms + outage.noticed_ms, self._disconnected, outage)
                self._schedule(outage.usable_ms, self._reconnected, None)
            if outage.start_ms + ADVERT_FRESH_MS < outage.end_ms:
                self._schedule(outage.start_ms + ADVERT_FRESH_MS, self._silent, None)
                self._schedule(outage.end_ms + NEXT_ADVERT_MS, self._reconnected, None)

    @property
    def in_flight(self) -> int:
        """Payloads that have not ended."""
        return len(self._in_flight)

    def forecast(self, now_ms: float) -> LinkForecast | None:
        """What the estimator knows."""
        return None if self._estimator is None else self._estimator.forecast(now_ms)

    def send(
        self, now_ms: float, frame: int, attempt: int, option: OffloadOption, due_ms: float
    ) -> Flight | None:
        """Hand a payload over, which takes its encoding time; None without a link or a free place.

        Units: due_ms, when an answer stops being worth anything to this frame.
        """
        estimator, world = self._estimator, self._world
        if estimator is None or not self.up or now_ms < self._busy_until_ms:
            return None
        if sum(each.due_ms > now_ms for each in self._in_flight.values()) >= WINDOW:
            return None
        self._tokens += 1
        flight = Flight(self._tokens, frame, option, now_ms, due_ms)
        self._in_flight[flight.token] = flight
        estimator.sent(flight.token, option, now_ms)
        if self._learner is not None:
            self._learner.learn(Sent(frame, option, now_ms - world.captured_ms[frame]), now_ms)
        handed_ms = flight.handed_ms
        draw = frame * ATTEMPTS + attempt
        rtt_ms = (world.rtt_idle_ms if self._asleep(handed_ms) else world.rtt_busy_ms)[draw]
        self._used_ms = handed_ms
        give_up_ms = max(now_ms, due_ms) + LATE_MS
        left_ms = self._uplink.transfer(handed_ms, option.payload_bytes + self._envelope_bytes)
        flight.one_way_ms = one_way_ms = rtt_ms / 2.0
        arrived_ms = inf if left_ms is None else left_ms + one_way_ms
        if arrived_ms >= give_up_ms or world.gateway_gaps.end_of(arrived_ms) is not None:
            self._schedule(give_up_ms, self._timed_out, flight)
            return flight
        factor = world.service_factor[frame]
        answered = self._when_answered(flight, one_way_ms, give_up_ms)
        first = option.boundary
        stage_ms = [factor * each for each in world.scenario.profile.gateway_stage_ms[first:]]
        left_ms = time_for_gateway(due_ms - handed_ms, estimator.least_way_ms(option, now_ms))
        flight.request = PoolRequest(self._asker, arrived_ms, left_ms, first, stage_ms, answered)
        if self._pool is None:
            service_ms = world.remote_ms[first] * factor
            answered(arrived_ms + service_ms, PoolAnswer(compute_ms=service_ms, exit=world.last_exit))
        else:
            self._schedule(arrived_ms, self._pool.arrive, flight.request)
        return flight

    def take_back(self, now_ms: float, flight: Flight, byte_price: float) -> int:
        """Send a cancel after a payload whose frame is answered, if that is worth it; its bytes.

        Payloads that have not left the board are not dropped: a replayed transport holds none back.
        """
        estimator = self._estimator
        if estimator is None or not self.up or flight.token not in self._in_flight:
            return 0
        flying = InFlight(flight.option, now_ms - flight.sent_ms)
        if not estimator.worth_cancelling(flying, now_ms, cancel_bytes=CANCEL_BYTES, byte_price=byte_price):
            return 0
        left_ms = self._uplink.transfer(now_ms, CANCEL_BYTES + self._envelope_bytes)
        if left_ms is not None and flight.request is not None:
            arrived_ms = left_ms + flight.one_way_ms
            if self._world.gateway_gaps.end_of(arrived_ms) is None:
                self._schedule(arrived_ms, self._cancel_arrived, flight.request)
        return CANCEL_BYTES

    def _cancel_arrived(self, now_ms: float, request: object) -> None:
        """A gateway lets go of a request: at once where it waits, after its stage where it runs."""
        assert isinstance(request, PoolRequest)
        if self._pool is not None:
            self._pool.withdraw(now_ms, request)
            return
        end_ms = request.arrived_ms
        for stage_ms in request.stage_ms[:-1]:
            end_ms += stage_ms
            request.done += 1
            if end_ms >= now_ms:
                request.ended(end_ms, request.refused(end_ms, Refusal(Status.CANCELLED)))
                return

    def tell(self, now_ms: float, result_bytes: int) -> None:
        """Send something that nobody replies to; it takes its place before later payloads."""
        if self.up:
            self._uplink.transfer(now_ms, result_bytes)

    def look(self) -> None:
        """Learn from all that has landed, as the loop does before each decision and between frames."""
        if not self._landed and not self._probe_landed:
            return
        estimator = self._estimator
        assert estimator is not None
        while self._landed:
            landed_ms, flight, failure = self._landed.popleft()
            seen: Observation
            if failure is None:
                # A transport counts from the hand-over on: encoding is the device's own time.
                took_ms = landed_ms - flight.handed_ms
                queue_ms, service_ms = flight.queue_ms, flight.service_ms
                whole = flight.exit == self._world.last_exit
                estimator.replied(
                    flight.token, took_ms, queue_ms, service_ms, REPLY_BYTES, landed_ms, whole=whole
                )
                seen = Replied(flight.frame, flight.option, took_ms, queue_ms, service_ms, REPLY_BYTES, whole)
            else:
                queue_ms, service_ms = flight.queue_ms, flight.service_ms
                estimator.failed(flight.token, failure, landed_ms, queue_ms=queue_ms, compute_ms=service_ms)
                waited_ms = landed_ms - flight.sent_ms
                seen = Failed(flight.frame, flight.option, waited_ms, failure, queue_ms, service_ms)
            if self._learner is not None:
                self._learner.learn(seen, landed_ms)
        while self._probe_landed:
            landed_ms, probe_bytes, elapsed_ms = self._probe_landed.popleft()
            if elapsed_ms is None:
                estimator.probe_failed(landed_ms)
            else:
                estimator.pinged(probe_bytes, elapsed_ms, landed_ms)
                if self._learner is not None:
                    self._learner.learn(Pinged(probe_bytes, elapsed_ms), landed_ms)

    def idle(self, now_ms: float) -> None:
        """Between frames: learn, and probe if the estimator asks for it."""
        self.look()
        if self._estimator is None or self._probe is not None or not self.up:
            return
        probe_bytes = self._estimator.wants_probe(now_ms)
        if probe_bytes is None:
            return
        world = self._world
        self.probes += 1
        self._probe = self.probes
        self.probe_bytes += probe_bytes
        # Probes take the round trips from the end of the list, frames those from its beginning.
        draw = -(1 + self.probes % len(world.rtt_idle_ms))
        rtt_ms = (world.rtt_idle_ms if self._asleep(now_ms) else world.rtt_busy_ms)[draw]
        self._used_ms = now_ms
        left_ms = self._uplink.transfer(now_ms, probe_bytes + self._envelope_bytes)
        back_ms = inf if left_ms is None else left_ms + rtt_ms
        lost = (
            back_ms >= now_ms + PING_TIME_OUT_MS
            or world.gateway_gaps.end_of(back_ms - rtt_ms / 2.0) is not None
        )
        end = (self._probe, probe_bytes, None if lost else back_ms - now_ms)
        self._schedule(now_ms + PING_TIME_OUT_MS if lost else back_ms, self._probe_ended, end)

    def _asleep(self, now_ms: float) -> bool:
        return now_ms - self._used_ms > self._wakes_after_ms

    def _when_answered(
        self, flight: Flight, one_way_ms: float, give_up_ms: float
    ) -> Callable[[float, PoolAnswer], None]:
        def answered(done_ms: float, answer: PoolAnswer) -> None:
            flight.queue_ms = answer.queue_ms
            flight.service_ms = answer.compute_ms
            flight.exit = answer.exit
            back_ms = done_ms + one_way_ms
            gap_end_ms = self._world.link_gaps.end_of(back_ms)
            if gap_end_ms is not None:
                back_ms = gap_end_ms + one_way_ms
            if back_ms >= give_up_ms:
                self._schedule(give_up_ms, self._timed_out, flight)
            elif answer.refusal is None:
                self._schedule(back_ms, self._replied, flight)
            else:
                self._schedule(back_ms, self._refused, (flight, answer.refusal))

        return answered

    def _replied(self, now_ms: float, flight: object) -> None:
        self._end(now_ms, flight, None)

    def _refused(self, now_ms: float, refused: object) -> None:
        assert isinstance(refused, tuple)
        flight, refusal = refused
        if refusal.retry_after_ms is not None:
            self._busy_until_ms = now_ms + refusal.retry_after_ms
        self._end(now_ms, flight, refusal.reason)

    def _timed_out(self, now_ms: float, flight: object) -> None:
        self._end(now_ms, flight, "no reply")

    def _end(self, now_ms: float, flight: object, failure: str | None) -> None:
        assert isinstance(flight, Flight)
        if self._in_flight.pop(flight.token, None) is None:
            return  # a disconnect has ended it before
        self._used_ms = now_ms
        self._landed.append((now_ms, flight, failure))
        self._ended(now_ms, flight, failure)

    def _disconnected(self, now_ms: float, outage: object) -> None:
        assert isinstance(outage, Outage)
        self._silent(now_ms, outage)
        if outage.kind is OutageKind.LINK:
            self._uplink.clear(now_ms)
        if self._probe is not None:
            self._probe_ended(now_ms, (self._probe, 0, None))
        for flight in list(self._in_flight.values()):
            self._end(now_ms, flight, "link is down")

    def _silent(self, now_ms: float, _: object) -> None:
        """No gateway is heard any more, whatever the connection says."""
        self._down += 1
        self.up = False
        if self._estimator is not None:
            self._estimator.connection(False, now_ms)

    def _reconnected(self, now_ms: float, _: object) -> None:
        self._down -= 1
        if self._down:
            return
        self.up = True
        self._used_ms = -inf
        if self._estimator is not None:
            self._estimator.connection(True, now_ms)

    def _probe_ended(self, now_ms: float, end: object) -> None:
        assert isinstance(end, tuple)
        probe, probe_bytes, elapsed_ms = end
        if probe == self._probe:
            self._probe = None
            self._probe_landed.append((now_ms, probe_bytes, elapsed_ms))
