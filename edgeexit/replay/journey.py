"""One device in a replay: its loop, its newest-frame slot and its deadline timer."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from edgeexit.decide.decision import Action, Evidence, InFlight, OffloadOption, Situation
from edgeexit.decide.guard import LEAST_MS, Guard
from edgeexit.decide.learner import FrameClosed, Learner, StageDone
from edgeexit.replay.audits import ReplayedAudits
from edgeexit.replay.controller import Controller
from edgeexit.replay.device_link import CANCELLED, REPLY_BYTES, DeviceLink, Flight
from edgeexit.replay.ledger import TOLERANCE_MS, Ledger
from edgeexit.replay.outcome import Outcome
from edgeexit.replay.pool import GatewayPool, Schedule
from edgeexit.replay.world import ATTEMPTS, NO_OPTIONS, World, spending_of

# The engine asks a waiting policy again after this, in case the budget has shrunk.
WAIT_MS = 10.0
# A pause of nothing would stop the virtual clock.
SHORTEST_WAIT_MS = 0.1
# An idle device asks for probes so often, as the daemon's loop does while it waits for a frame.
IDLE_LOOK_MS = 100.0


class DeviceRun:
    """Runs one device through its world; methods that take an `object` are events."""

    def __init__(
        self,
        world: World,
        controller: Controller,
        schedule: Schedule,
        pool: GatewayPool | None,
        frame_closed: Callable[[], None],
    ) -> None:
        scenario = world.scenario
        self._world = world
        self._schedule = schedule
        self._frame_closed = frame_closed
        self._policy = controller.policy
        self._decide = controller.policy.decide
        self._anytime = controller.policy.anytime
        self._latency = controller.latency
        self._learner = controller.policy if isinstance(controller.policy, Learner) else None
        self._link = DeviceLink(world, controller.link, self._learner, schedule, pool, self._ended)
        self._cancels = controller.cancels
        self._audits: ReplayedAudits | None = None
        if controller.audits is not None:
            self._audits = ReplayedAudits(controller.audits, world, self._link, self._learner)
        self._stage_count = scenario.profile.stage_count
        self._decision_ms = scenario.profile.decision_ms
        self._overhead_ms = scenario.profile.overhead_ms
        self._result_bytes = scenario.profile.result_bytes
        self._spending = spending_of(scenario)
        self._ledger = Ledger(world)
        # The frame in hand; `busy` while a stage runs, also one whose frame is answered already.
        self._frame = -1
        self._open = False
        self._busy = False
        self._slot: int | None = None
        self._captured_ms = 0.0
        self._evidence: list[Evidence] = []
        self._stages_done = 0
        self._best: Evidence | None = None
        self._best_quality = 0.0
        self._best_remote = False
        # When something came in hand first.
        self._first_ms = inf
        self._flight: Flight | None = None
        self._may_send = True
        self._sends = 0
        # Number of the wait in progress, 0 for none, and when it began.
        self._waiting = 0
        self._waits = 0
        self._wait_began_ms = 0.0
        self._blocked_ms = 0.0
        # How late the timer wakes, and what it is given for that on the frame in hand.
        self._guard = Guard()
        self._guard_ms = LEAST_MS
        # Number of the pause between two frames.
        self._pauses = 0

    def begin(self) -> None:
        """Connect, and plan the first frame."""
        self._link.begin()
        self._schedule(self._in_hand_ms(0), self._captured, 0)

    def outcome(self) -> Outcome:
        """What became of every frame."""
        link = self._link
        outcome = self._ledger.outcome(self._policy.name, probes=link.probes, probe_bytes=link.probe_bytes)
        if self._audits is not None:
            outcome.audits = self._audits.count
        return outcome

    # Frames

    def _in_hand_ms(self, frame: int) -> float:
        """When a frame has been decoded and handed over, while the loop may still be busy with another."""
        return self._world.compute.finish_ms(self._world.captured_ms[frame], self._overhead_ms)

    def _captured(self, now_ms: float, frame: object) -> None:
        assert isinstance(frame, int)
        if frame + 1 < self._world.frames:
            self._schedule(self._in_hand_ms(frame + 1), self._captured, frame + 1)
        if self._open or self._busy:
            if self._slot is not None:
                self._ledger.replaced(self._slot)
                self._frame_closed()
            self._slot = frame
            return
        self._start(now_ms, frame)

    def _start(self, now_ms: float, frame: int) -> None:
        world = self._world
        self._frame = frame
        self._pauses += 1
        self._open = True
        self._captured_ms = world.captured_ms[frame]
        self._evidence = world.evidence(world.samples[frame])
        self._stages_done = 0
        self._best = None
        self._best_remote = False
        self._first_ms = inf
        self._flight = None
        self._may_send = True
        self._sends = 0
        self._blocked_ms = 0.0
        self._guard_ms = self._guard.ms(now_ms)
        if self._anytime:
            self._arm(now_ms)
        self._step(now_ms)

    def _close(self, now_ms: float, *, by_timer: bool = False, reason: str = "") -> None:
        """Emit the best answer in hand."""
        frame, best, ledger = self._frame, self._best, self._ledger
        assert best is not None
        self._open = False
        blocked_ms, due_ms = self._blocked_ms, now_ms + self._remaining_ms(now_ms)
        if self._anytime and self._first_ms <= due_ms:
            # In hand when it was due: what is later than that is the timer's own lateness.
            blocked_ms = 0.0
        budget_ms = ledger.answered(
            frame,
            now_ms,
            exit_index=best.exit,
            quality=self._best_quality,
            remote=self._best_remote,
            by_timer=by_timer,
            blocked_ms=blocked_ms,
        )
        self._frame_closed()
        if self._result_bytes:
            self._link.tell(now_ms, self._result_bytes)
        if self._learner is not None:
            latency_ms = now_ms - self._captured_ms
            stages_run = ledger.stages_run[frame]
            closed = FrameClosed(frame, latency_ms, budget_ms, best.exit, stages_run, self._sends)
            self._learner.learn(closed, now_ms)
        if self._audits is not None:
            self._audits.closed(frame, best.exit, reason, self._stages_done)

    def _free(self, now_ms: float) -> None:
        """The loop's thread has nothing to do: it learns and probes, then takes what waits in the slot.

        While nothing waits there it looks again and again, so that a probe is back before the next frame.
        """
        self._link.idle(now_ms)
        if self._audits is not None:
            self._audits.look(now_ms)
        self._take_back(now_ms)
        frame, self._slot = self._slot, None
        if frame is not None:
            self._start(now_ms, frame)
            return
        if self._audits is not None:
            self._audits.spend_moment(now_ms)
        if self._frame + 1 < self._world.frames:
            self._schedule(now_ms + IDLE_LOOK_MS, self._idle, self._pauses)

    def _idle(self, now_ms: float, pause: object) -> None:
        """Use the pause between two frames, if it still lasts."""
        if pause == self._pauses:
            self._link.idle(now_ms)
            self._schedule(now_ms + IDLE_LOOK_MS, self._idle, pause)

    # The loop

    def _step(self, now_ms: float) -> None:
        """Decide and act until a stage runs, the policy waits, or the frame is answered."""
        world, frame = self._world, self._frame
        while True:
            self._link.look()
            if not self._open:
                self._free(now_ms)
                return
            remaining_ms = self._remaining_ms(now_ms)
            if remaining_ms <= TOLERANCE_MS and self._best is not None and self._anytime:
                self._close(now_ms, by_timer=True)
                continue
            decision = self._decide(self._situation(now_ms, remaining_ms))
            self._ledger.decisions += 1
            now_ms += self._decision_ms
            action = decision.action
            if action is Action.OFFLOAD and decision.option is not None:
                now_ms = self._send(now_ms, decision.option)
            elif action is Action.WAIT and self._flight is not None:
                self._wait(now_ms, decision.wait_ms, remaining_ms)
                return
            elif action is Action.EXIT and self._best is not None:
                self._close(now_ms, reason=decision.reason)
            elif self._stages_done < self._stage_count:
                self._busy = True
                end_ms = world.compute.finish_ms(now_ms, world.work_ms[frame][self._stages_done])
                self._schedule(end_ms, self._stage_ended, now_ms)
                return
            elif self._best is not None:
                self._close(now_ms)

    def _situation(self, now_ms: float, remaining_ms: float) -> Situation:
        link, flight, spending = self._link, self._flight, self._spending
        options, later = NO_OPTIONS
        compute = self._latency.forecast(now_ms)
        stage_energy_mj: tuple[float, ...] = ()
        if spending.prices_energy:
            medians_ms = [compute.median_ms(each, each + 1) for each in range(self._stage_count)]
            stage_energy_mj = spending.stage_energy_mj(medians_ms)
        if link.up and flight is None and self._may_send and self._sends < ATTEMPTS:
            options, later = self._world.options_after[self._stages_done]
        return Situation(
            remaining_ms,
            now_ms - self._captured_ms,
            self._stages_done,
            self._stage_count,
            self._best,
            self._world.prior_quality,
            compute,
            link.forecast(now_ms),
            options,
            None if flight is None else InFlight(flight.option, now_ms - flight.sent_ms),
            self._sends,
            spending.byte_price(now_ms),
            later,
            spending.energy_price(now_ms),
            stage_energy_mj,
        )

    def _stage_ended(self, now_ms: float, began_ms: object) -> None:
        assert isinstance(began_ms, float)
        self._busy = False
        stage, frame = self._stages_done, self._frame
        took_ms = now_ms - began_ms
        self._latency.observe(stage, took_ms, now_ms)
        self._spending.ran(took_ms)
        if self._learner is not None:
            self._learner.learn(StageDone(frame, stage, took_ms), now_ms)
        self._ledger.stages_run[frame] += 1
        self._stages_done = stage + 1
        if self._open and (self._best is None or stage > self._best.exit):
            self._first_ms = min(self._first_ms, now_ms)
            self._best = self._evidence[stage]
            self._best_remote = False
            self._best_quality = self._world.quality[self._world.samples[frame]][stage]
        self._step(now_ms)

    def _wait(self, now_ms: float, wait_ms: float | None, remaining_ms: float) -> None:
        pause_ms = WAIT_MS if wait_ms is None else min(wait_ms, WAIT_MS)
        if 0.0 < remaining_ms < pause_ms:
            pause_ms = remaining_ms
        self._waits += 1
        self._waiting = self._waits
        self._wait_began_ms = now_ms
        self._schedule(now_ms + max(pause_ms, SHORTEST_WAIT_MS), self._woken, self._waits)

    def _woken(self, now_ms: float, wait: object) -> None:
        if wait == self._waiting:
            self._resume(now_ms)

    def _resume(self, now_ms: float) -> None:
        """End a wait."""
        self._count_wait(now_ms)
        self._waiting = 0
        self._step(now_ms)

    def _count_wait(self, now_ms: float) -> None:
        """Count what was waited until now, which is time that the network cost."""
        if self._waiting:
            if self._held_up:
                self._blocked_ms += now_ms - self._wait_began_ms
            self._wait_began_ms = now_ms

    @property
    def _held_up(self) -> bool:
        """Whether sending and waiting can delay the answer: with one in hand the timer gives it in time."""
        return self._best is None or not self._anytime

    # The deadline timer

    def _arm(self, now_ms: float) -> None:
        """Plan the timer's next look: at the deadline in force, or when the budget changes before it."""
        world = self._world
        remaining_ms = self._remaining_ms(now_ms)
        look_ms = world.deadlines.next_change_ms(now_ms)
        if remaining_ms > TOLERANCE_MS:
            look_ms = min(look_ms, now_ms + remaining_ms)
        if look_ms < inf:
            late_ms = 0.0 if world.waking_ms is None else world.waking_ms[self._frame]
            self._schedule(look_ms + late_ms, self._timer, self._frame)

    def _timer(self, now_ms: float, frame: object) -> None:
        world = self._world
        if not self._open or frame != self._frame:
            return
        if self._best is None or self._remaining_ms(now_ms) > TOLERANCE_MS:
            # Past the deadline with nothing in hand, the first that comes in hand is the answer.
            self._arm(now_ms)
            return
        self._count_wait(now_ms)
        late_ms = -self._remaining_ms(now_ms)
        self._close(now_ms, by_timer=True)
        if world.deadlines.latency_ms(now_ms) == world.deadlines.latency_ms(self._captured_ms):
            self._guard.woke(late_ms, now_ms)
        if self._waiting:
            self._resume(now_ms)

    def _remaining_ms(self, now_ms: float) -> float:
        """Until the frame in hand must be answered."""
        return self._world.remaining_ms(self._captured_ms, now_ms, self._guard_ms)

    # Offloads

    def _send(self, now_ms: float, option: OffloadOption) -> float:
        """Hand a payload over; gives the time when the loop may go on."""
        frame, ledger = self._frame, self._ledger
        flight: Flight | None = None
        if self._flight is None and self._sends < ATTEMPTS:
            due_ms = now_ms + self._remaining_ms(now_ms)
            flight = self._link.send(now_ms, frame, self._sends, option, due_ms)
        if flight is None:
            self._may_send = False
            return now_ms
        self._flight = flight
        self._sends += 1
        if self._held_up:
            self._blocked_ms += option.encode_ms
        self._spending.sent(option.payload_bytes)
        ledger.sends[frame] = self._sends
        ledger.uplink_bytes[frame] += option.payload_bytes
        ledger.offloads.sent += 1
        return now_ms + option.encode_ms

    def _take_back(self, now_ms: float) -> None:
        """Let the gateway know that the frame is answered, as the engine does after each."""
        flight = self._flight
        if flight is None or not self._cancels:
            return
        cancel_bytes = self._link.take_back(now_ms, flight, self._spending.byte_price(now_ms))
        self._spending.sent(cancel_bytes)
        self._ledger.uplink_bytes[flight.frame] += cancel_bytes

    def _ended(self, now_ms: float, flight: Flight, failure: str | None) -> None:
        """A flight has ended: a reply closes its frame, and whatever it was wakes a loop that waits."""
        if self._audits is not None and self._audits.ended(flight, failure):
            return
        if self._flight is flight:
            self._flight = None
        if failure == CANCELLED:
            self._ledger.offloads.cancelled += 1
        elif failure is not None:
            self._ledger.offloads.failed += 1
        else:
            self._replied(now_ms, flight)
        if self._waiting:
            self._resume(now_ms)

    def _replied(self, now_ms: float, flight: Flight) -> None:
        frame, ledger, world = flight.frame, self._ledger, self._world
        last = world.last_exit
        exit_ = last if flight.exit is None else flight.exit
        ledger.downlink_bytes[frame] += REPLY_BYTES
        self._count_wait(now_ms)
        if self._open and frame == self._frame and (self._best is None or self._best.exit < exit_):
            self._first_ms = min(self._first_ms, now_ms)
            self._best = self._evidence[exit_]
            self._best_remote = True
            ledger.offloads.used += 1
            if exit_ < last:
                # A gateway that ran out of time: an answer in hand like one computed here.
                self._best_quality = world.quality[world.samples[frame]][exit_]
                if self._anytime and self._remaining_ms(now_ms) <= TOLERANCE_MS:
                    self._close(now_ms, by_timer=True)
                return
            self._best_quality = world.option_quality[world.samples[frame]][world.option_index[flight.option]]
            self._close(now_ms)
        elif ledger.by_timer[frame] or now_ms > world.expiry_ms[frame]:
            ledger.offloads.late += 1
        else:
            ledger.offloads.unused += 1
