"""One device in a replay: its loop, its newest-frame slot, its deadline timer and its transport."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil, inf

import numpy as np

from edgeexit.decide.decision import Action, Evidence, InFlight, OffloadOption, Situation
from edgeexit.decide.learner import (
    Failed,
    FrameClosed,
    Learner,
    Observation,
    Pinged,
    Replied,
    Sent,
    StageDone,
)
from edgeexit.replay.controller import Controller
from edgeexit.replay.outages import Outage, OutageKind
from edgeexit.replay.outcome import (
    LATE_COMPUTE,
    LATE_NETWORK,
    NEVER,
    NEVER_ANSWERED,
    ON_TIME,
    REPLACED,
    OffloadCount,
    Outcome,
)
from edgeexit.replay.pool import GatewayPool, PoolRequest, Schedule
from edgeexit.replay.world import ATTEMPTS, GIVE_UP_MS, NO_OPTIONS, World

# The engine asks a waiting policy again after this, in case the budget has shrunk.
WAIT_MS = 10.0
# The deadline timer looks this often for a budget that was changed while a stage ran.
LOOK_AGAIN_MS = 10.0
# A whole reply of ten class scores on the wire.
REPLY_BYTES = 256
# An answer at the deadline itself counts; this absorbs rounding in sums of times.
TOLERANCE_MS = 1e-6


class _Flight:
    """One payload on its way."""

    __slots__ = ("frame", "option", "queue_ms", "sent_ms", "service_ms", "token")

    def __init__(self, token: int, frame: int, option: OffloadOption, sent_ms: float) -> None:
        self.token = token
        self.frame = frame
        self.option = option
        self.sent_ms = sent_ms
        self.queue_ms = 0.0
        self.service_ms = 0.0


_Landing = tuple[float, _Flight, str | None]
"""When, which flight, and why it failed."""


class DeviceRun:
    """Runs one device through its world; every method that takes an argument is an event."""

    def __init__(
        self,
        world: World,
        controller: Controller,
        schedule: Schedule,
        pool: GatewayPool | None,
        frame_closed: Callable[[], None],
    ) -> None:
        scenario = world.scenario
        frames = world.frames
        self._world = world
        self._schedule = schedule
        self._pool = pool
        self._frame_closed = frame_closed
        self._policy = controller.policy
        self._decide = controller.policy.decide
        self._latency = controller.latency
        self._link = controller.link
        self._anytime = controller.policy.anytime
        self._learner = controller.policy if isinstance(controller.policy, Learner) else None
        self._stage_count = scenario.profile.stage_count
        self._last_exit = self._stage_count - 1
        self._decision_ms = scenario.profile.decision_ms
        self._overhead_ms = scenario.profile.overhead_ms
        self._result_bytes = scenario.profile.result_bytes
        self._byte_price = scenario.byte_price
        self._uplink = world.new_uplink()
        self._wakes_after_ms = scenario.delay.wakes_after_ms
        # The frame in hand.
        self._frame = -1
        self._open = False
        self._busy = False
        self._waiting = 0
        self._wakes = 0
        self._slot: int | None = None
        self._captured_ms = 0.0
        self._evidence: list[Evidence] = []
        self._stages_done = 0
        self._best: Evidence | None = None
        self._best_quality = 0.0
        self._best_remote = False
        self._flight: _Flight | None = None
        self._may_send = True
        self._sends = 0
        self._blocked_ms = 0.0
        self._wait_began_ms = 0.0
        # The transport.
        self._up = True
        self._down = 0
        self._used_ms = -inf
        self._tokens = 0
        self._in_flight: dict[int, _Flight] = {}
        self._landed: deque[_Landing] = deque()
        self._probe: int | None = None
        self._probes = 0
        self._probe_landed: deque[tuple[float, int, float | None]] = deque()
        # What became of the frames.
        self._offloads = OffloadCount()
        self._decisions = 0
        self._probe_bytes = 0
        self._emitted_ms = [NEVER] * frames
        self._deadline_ms = [NEVER] * frames
        self._quality = [0.0] * frames
        self._exits = [-1] * frames
        self._remote = [False] * frames
        self._fates = [NEVER_ANSWERED] * frames
        self._stages_run = [0] * frames
        self._sends_of = [0] * frames
        self._bytes = [0] * frames
        self._down_bytes = [0] * frames
        self._by_timer = [False] * frames

    def begin(self) -> None:
        """Plan the frames and the connection's ups and downs."""
        if self._link is not None:
            self._link.connection(True, 0.0)
            for outage in self._world.scenario.outages:
                if outage.told and outage.noticed_ms is not None:
                    self._schedule(outage.start_ms + outage.noticed_ms, self._disconnected, outage)
                    self._schedule(outage.usable_ms, self._reconnected, None)
        self._schedule(self._in_hand_ms(0), self._captured, 0)

    def outcome(self) -> Outcome:
        """What became of every frame."""
        world = self._world
        return Outcome(
            policy=self._policy.name,
            scenario=world.scenario.name,
            seed=world.seed,
            samples=np.asarray(world.samples),
            captured_ms=np.asarray(world.captured_ms),
            expiry_ms=np.asarray(world.expiry_ms),
            emitted_ms=np.asarray(self._emitted_ms),
            deadline_ms=np.asarray(self._deadline_ms),
            quality=np.asarray(self._quality),
            exits=np.asarray(self._exits),
            remote=np.asarray(self._remote),
            fates=np.asarray(self._fates),
            stages_run=np.asarray(self._stages_run),
            sends=np.asarray(self._sends_of),
            uplink_bytes=np.asarray(self._bytes),
            downlink_bytes=np.asarray(self._down_bytes),
            by_timer=np.asarray(self._by_timer),
            probe_bytes=self._probe_bytes,
            decisions=self._decisions,
            offloads=self._offloads,
        )

    # Frames

    def _in_hand_ms(self, frame: int) -> float:
        """When a frame has been decoded and handed over, while the loop may still be busy with another."""
        captured_ms = self._world.captured_ms[frame]
        return self._world.compute.finish_ms(captured_ms, self._overhead_ms)

    def _captured(self, now_ms: float, frame: object) -> None:
        assert isinstance(frame, int)
        captured = self._world.captured_ms
        if frame + 1 < len(captured):
            self._schedule(self._in_hand_ms(frame + 1), self._captured, frame + 1)
        if self._open or self._busy:
            if self._slot is not None:
                self._fates[self._slot] = REPLACED
                self._deadline_ms[self._slot] = self._world.expiry_ms[self._slot] - captured[self._slot]
                self._frame_closed()
            self._slot = frame
            return
        self._idle(now_ms)
        self._start(now_ms, frame)

    def _start(self, now_ms: float, frame: int) -> None:
        world = self._world
        self._frame = frame
        self._open = True
        self._captured_ms = world.captured_ms[frame]
        self._evidence = world.evidence(world.samples[frame])
        self._stages_done = 0
        self._best = None
        self._best_remote = False
        self._flight = None
        self._may_send = True
        self._sends = 0
        self._blocked_ms = 0.0
        if self._anytime:
            self._arm(now_ms, now_ms)
        self._step(now_ms)

    def _close(self, now_ms: float, *, by_timer: bool = False) -> None:
        """Emit the best answer in hand."""
        frame, best, world = self._frame, self._best, self._world
        assert best is not None
        self._open = False
        self._emitted_ms[frame] = now_ms
        budget_ms = self._deadline_ms[frame] = world.deadlines.latency_ms(now_ms)
        self._quality[frame] = self._best_quality
        self._exits[frame] = best.exit
        self._remote[frame] = self._best_remote
        self._by_timer[frame] = by_timer
        late_ms = now_ms - world.expiry_ms[frame]
        if late_ms <= TOLERANCE_MS:
            self._fates[frame] = ON_TIME
        else:
            # Late because of the network where, without waiting for it, it would have been in time.
            self._fates[frame] = LATE_NETWORK if self._blocked_ms >= late_ms else LATE_COMPUTE
        self._frame_closed()
        if self._result_bytes and self._link is not None and self._up:
            self._uplink.transfer(now_ms, self._result_bytes)
        if self._learner is not None:
            latency_ms = now_ms - self._captured_ms
            self._learner.learn(
                FrameClosed(frame, latency_ms, budget_ms, best.exit, self._stages_run[frame], self._sends),
                now_ms,
            )

    def _free(self, now_ms: float) -> None:
        """The loop's thread has nothing to do: between frames it learns and probes."""
        self._idle(now_ms)
        frame = self._slot
        if frame is not None:
            self._slot = None
            self._start(now_ms, frame)

    # The loop

    def _step(self, now_ms: float) -> None:
        """Decide and act until a stage runs, the policy waits, or the frame is answered."""
        world, frame = self._world, self._frame
        while True:
            if self._landed or self._probe_landed:
                self._look()
            if not self._open:
                self._free(now_ms)
                return
            remaining_ms = world.remaining_ms(self._captured_ms, now_ms)
            if remaining_ms <= TOLERANCE_MS and self._best is not None and self._anytime:
                self._close(now_ms, by_timer=True)
                continue
            decision = self._decide(self._situation(now_ms, remaining_ms))
            self._decisions += 1
            now_ms += self._decision_ms
            action = decision.action
            if action is Action.OFFLOAD and decision.option is not None:
                now_ms = self._send(now_ms, decision.option)
            elif action is Action.WAIT and self._flight is not None:
                pause_ms = WAIT_MS if decision.wait_ms is None else min(decision.wait_ms, WAIT_MS)
                if 0.0 < remaining_ms < pause_ms:
                    pause_ms = remaining_ms
                self._wakes += 1
                self._waiting = self._wakes
                self._wait_began_ms = now_ms
                # A pause of nothing would stop the virtual clock.
                self._schedule(now_ms + max(pause_ms, 0.1), self._woken, self._wakes)
                return
            elif action is Action.EXIT and self._best is not None:
                self._close(now_ms)
            elif self._stages_done < self._stage_count:
                self._busy = True
                end_ms = world.compute.finish_ms(now_ms, world.work_ms[frame][self._stages_done])
                self._schedule(end_ms, self._stage_ended, now_ms)
                return
            elif self._best is not None:
                self._close(now_ms)

    def _situation(self, now_ms: float, remaining_ms: float) -> Situation:
        link, flight = self._link, self._flight
        may_send = self._up and self._may_send and self._sends < ATTEMPTS
        options, later = NO_OPTIONS
        if link is not None and flight is None and may_send:
            options, later = self._world.options_after[self._stages_done]
        return Situation(
            remaining_ms,
            now_ms - self._captured_ms,
            self._stages_done,
            self._stage_count,
            self._best,
            self._world.prior_quality,
            self._latency.forecast(now_ms),
            None if link is None else link.forecast(now_ms),
            options,
            None if flight is None else InFlight(flight.option, now_ms - flight.sent_ms),
            self._sends,
            self._byte_price,
            later,
        )

    def _stage_ended(self, now_ms: float, began_ms: object) -> None:
        assert isinstance(began_ms, float)
        self._busy = False
        stage, frame = self._stages_done, self._frame
        took_ms = now_ms - began_ms
        self._latency.observe(stage, took_ms, now_ms)
        if self._learner is not None:
            self._learner.learn(StageDone(frame, stage, took_ms), now_ms)
        self._stages_run[frame] += 1
        self._stages_done = stage + 1
        if self._open and (self._best is None or stage > self._best.exit):
            self._best = self._evidence[stage]
            self._best_quality = self._world.quality[self._world.samples[frame]][stage]
            self._best_remote = False
        self._step(now_ms)

    def _woken(self, now_ms: float, wake: object) -> None:
        if wake != self._waiting:
            return
        self._resume(now_ms)

    def _resume(self, now_ms: float) -> None:
        """End a wait; what was waited is time that the network cost."""
        self._waiting = 0
        self._blocked_ms += now_ms - self._wait_began_ms
        self._step(now_ms)

    # The deadline timer

    def _arm(self, now_ms: float, began_ms: float) -> None:
        """Plan the timer's next look: the deadline, or its first look after the next change of budget."""
        world = self._world
        due_ms = now_ms + world.remaining_ms(self._captured_ms, now_ms)
        change_ms = world.deadlines.next_change_ms(now_ms)
        if change_ms < due_ms:
            looks = max(1, ceil((change_ms - began_ms) / LOOK_AGAIN_MS))
            due_ms = min(due_ms, began_ms + looks * LOOK_AGAIN_MS)
        self._schedule(max(due_ms, now_ms), self._timer, (self._frame, began_ms))

    def _timer(self, now_ms: float, watched: object) -> None:
        assert isinstance(watched, tuple)
        frame, began_ms = watched
        if not self._open or frame != self._frame:
            return
        if self._world.remaining_ms(self._captured_ms, now_ms) > TOLERANCE_MS:
            self._arm(now_ms, began_ms)
        elif self._best is not None:
            self._close(now_ms, by_timer=True)
            if self._waiting:
                self._waiting = 0
                self._step(now_ms)

    # The transport

    def _send(self, now_ms: float, option: OffloadOption) -> float:
        """Hand a payload over; gives the time when the loop may go on."""
        world, frame, link = self._world, self._frame, self._link
        if link is None or not self._up or self._flight is not None or self._sends >= ATTEMPTS:
            self._may_send = False
            return now_ms
        attempt = frame * ATTEMPTS + self._sends
        self._tokens += 1
        flight = _Flight(self._tokens, frame, option, now_ms)
        handed_ms = now_ms + option.encode_ms
        self._blocked_ms += option.encode_ms
        idle = handed_ms - self._used_ms > self._wakes_after_ms
        rtt_ms = world.rtt_idle_ms[attempt] if idle else world.rtt_busy_ms[attempt]
        left_ms = world.remaining_ms(self._captured_ms, handed_ms)
        link.sent(flight.token, option, now_ms)
        if self._learner is not None:
            self._learner.learn(Sent(frame, option, now_ms - self._captured_ms), now_ms)
        self._flight = flight
        self._in_flight[flight.token] = flight
        self._used_ms = handed_ms
        self._sends += 1
        self._sends_of[frame] = self._sends
        self._bytes[frame] += option.payload_bytes
        self._offloads.sent += 1
        give_up_ms = now_ms + GIVE_UP_MS
        arrived_ms = self._uplink.transfer(handed_ms, option.payload_bytes)
        if arrived_ms is not None:
            arrived_ms += rtt_ms / 2.0
        if (
            arrived_ms is None
            or arrived_ms >= give_up_ms
            or world.gateway_gaps.end_of(arrived_ms) is not None
        ):
            self._schedule(give_up_ms, self._timed_out, flight)
            return handed_ms
        service_ms = world.remote_ms[option.boundary] * world.service_factor[frame]

        def served(done_ms: float, queue_ms: float, refused: bool) -> None:
            flight.queue_ms = queue_ms
            flight.service_ms = 0.0 if refused else service_ms
            back_ms = done_ms + rtt_ms / 2.0
            gap_end_ms = world.link_gaps.end_of(back_ms)
            if gap_end_ms is not None:
                back_ms = gap_end_ms + rtt_ms / 2.0
            if back_ms >= give_up_ms:
                self._schedule(give_up_ms, self._timed_out, flight)
            else:
                self._schedule(back_ms, self._refused if refused else self._replied, flight)

        if self._pool is None:
            served(arrived_ms + service_ms, 0.0, False)
        else:
            request = PoolRequest(arrived_ms, service_ms, handed_ms + left_ms, served)
            self._schedule(arrived_ms, self._pool.arrive, request)
        return handed_ms

    def _replied(self, now_ms: float, flight: object) -> None:
        assert isinstance(flight, _Flight)
        if self._in_flight.pop(flight.token, None) is None:
            return
        frame, count, world = flight.frame, self._offloads, self._world
        self._down_bytes[frame] += REPLY_BYTES
        if self._open and frame == self._frame and (self._best is None or self._best.exit < self._last_exit):
            self._best = self._evidence[self._last_exit]
            column = world.option_index[flight.option]
            self._best_quality = world.option_quality[world.samples[frame]][column]
            self._best_remote = True
            if self._waiting:
                self._blocked_ms += now_ms - self._wait_began_ms
            self._close(now_ms)
            count.used += 1
        elif self._by_timer[frame] or now_ms > world.expiry_ms[frame]:
            count.late += 1
        else:
            count.unused += 1
        self._land(now_ms, flight, None)

    def _refused(self, now_ms: float, flight: object) -> None:
        self._fail(now_ms, flight, "too_late")

    def _timed_out(self, now_ms: float, flight: object) -> None:
        self._fail(now_ms, flight, "no reply")

    def _fail(self, now_ms: float, flight: object, reason: str) -> None:
        assert isinstance(flight, _Flight)
        if self._in_flight.pop(flight.token, None) is None:
            return
        self._offloads.failed += 1
        self._land(now_ms, flight, reason)

    def _land(self, now_ms: float, flight: _Flight, failure: str | None) -> None:
        """Note the end of a flight, and wake the loop if it waits."""
        if self._flight is flight:
            self._flight = None
        self._used_ms = now_ms
        self._landed.append((now_ms, flight, failure))
        if self._waiting:
            if self._open:
                self._resume(now_ms)
            else:
                self._waiting = 0
                self._step(now_ms)

    def _disconnected(self, now_ms: float, outage: object) -> None:
        assert isinstance(outage, Outage)
        self._down += 1
        self._up = False
        if outage.kind is OutageKind.LINK:
            self._uplink.clear(now_ms)
        if self._link is not None:
            self._link.connection(False, now_ms)
        if self._probe is not None:
            self._probe_ended(now_ms, (self._probe, 0, None))
        for flight in list(self._in_flight.values()):
            self._fail(now_ms, flight, "link is down")

    def _reconnected(self, now_ms: float, _: object) -> None:
        self._down -= 1
        if self._down:
            return
        self._up = True
        self._used_ms = -inf
        if self._link is not None:
            self._link.connection(True, now_ms)

    def _idle(self, now_ms: float) -> None:
        """Between frames: learn from what has landed, and probe if the estimator asks for it."""
        if self._landed or self._probe_landed:
            self._look()
        link = self._link
        if link is None or self._probe is not None or not self._up:
            return
        probe_bytes = link.wants_probe(now_ms)
        if probe_bytes is None:
            return
        world = self._world
        self._probes += 1
        self._probe = self._probes
        self._offloads.probes += 1
        self._probe_bytes += probe_bytes
        draw = self._probes % len(world.rtt_idle_ms)
        idle = now_ms - self._used_ms > self._wakes_after_ms
        rtt_ms = world.rtt_idle_ms[-draw] if idle else world.rtt_busy_ms[-draw]
        self._used_ms = now_ms
        arrived_ms = self._uplink.transfer(now_ms, probe_bytes)
        lost = arrived_ms is None or world.gateway_gaps.end_of(arrived_ms) is not None
        if lost or arrived_ms is None or arrived_ms + rtt_ms >= now_ms + GIVE_UP_MS:
            self._schedule(now_ms + GIVE_UP_MS, self._probe_ended, (self._probe, probe_bytes, None))
        else:
            elapsed_ms = arrived_ms + rtt_ms - now_ms
            self._schedule(arrived_ms + rtt_ms, self._probe_ended, (self._probe, probe_bytes, elapsed_ms))

    def _probe_ended(self, now_ms: float, end: object) -> None:
        assert isinstance(end, tuple)
        probe, probe_bytes, elapsed_ms = end
        if probe == self._probe:
            self._probe = None
            self._probe_landed.append((now_ms, probe_bytes, elapsed_ms))

    def _look(self) -> None:
        """Learn from all that has landed, as the loop does before each decision and between frames."""
        link = self._link
        if link is None:
            return
        while self._landed:
            landed_ms, flight, failure = self._landed.popleft()
            took_ms = landed_ms - flight.sent_ms
            seen: Observation
            if failure is None:
                queue_ms, service_ms = flight.queue_ms, flight.service_ms
                link.replied(flight.token, took_ms, queue_ms, service_ms, REPLY_BYTES, landed_ms)
                seen = Replied(flight.frame, flight.option, took_ms, queue_ms, service_ms, REPLY_BYTES)
            else:
                link.failed(flight.token, failure, landed_ms)
                seen = Failed(flight.frame, flight.option, took_ms, failure)
            if self._learner is not None:
                self._learner.learn(seen, landed_ms)
        while self._probe_landed:
            landed_ms, probe_bytes, elapsed_ms = self._probe_landed.popleft()
            if elapsed_ms is None:
                link.probe_failed(landed_ms)
            else:
                link.pinged(probe_bytes, elapsed_ms, landed_ms)
                if self._learner is not None:
                    self._learner.learn(Pinged(probe_bytes, elapsed_ms), landed_ms)
