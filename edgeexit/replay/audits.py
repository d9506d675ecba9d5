"""Audits in a replay: by the same terms as on a board, over the replayed link."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, replace

from edgeexit.decide.decision import LinkForecast, OffloadOption
from edgeexit.decide.drift import CERTIFIED, AuditTerms
from edgeexit.decide.learner import Audited, Learner
from edgeexit.replay.device_link import DeviceLink, Flight
from edgeexit.replay.outcome import AuditCount
from edgeexit.replay.world import ATTEMPTS, World

# A gateway gets this long for an audit, as from the device's engine.
PATIENCE_MS = 2000.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    frame: int
    exit: int
    early: bool
    option: OffloadOption


class ReplayedAudits:
    """Sends what the terms pick in moments without a frame, and tells the policy between frames.

    A frame waits for its moment until the next one of the sample, whether it has to be sent or not.
    """

    __slots__ = ("_flights", "_landed", "_learner", "_link", "_terms", "_waiting", "_world", "count")

    def __init__(self, terms: AuditTerms, world: World, link: DeviceLink, learner: Learner | None) -> None:
        self._terms = terms
        self._world = world
        self._link = link
        self._learner = learner
        self._waiting: _Waiting | None = None
        self._flights: dict[int, _Waiting] = {}
        self._landed: deque[_Waiting] = deque()
        self.count = AuditCount()

    def closed(self, frame: int, exit_: int, reason: str, stages_done: int) -> None:
        """Take note of a frame that was answered."""
        if not self._terms.picks(frame):
            return
        option = self._option(stages_done)
        if option is None:
            return
        early = reason == CERTIFIED and exit_ < self._world.scenario.profile.stage_count - 1
        if self._waiting is not None:
            self.count.skipped += 1
        self._waiting = _Waiting(frame, exit_, early, option)

    def look(self, now_ms: float) -> None:
        """Judge what has landed."""
        answers, samples = self._world.recording.answers, self._world.samples
        while self._landed:
            audit = self._landed.popleft()
            row = answers[samples[audit.frame]]
            tolerance = self._terms.tolerance
            apart = abs(float(row[audit.exit]) - float(row[-1]))
            self._tell(audit.frame, apart <= (0.0 if tolerance is None else tolerance), now_ms)

    def spend_moment(self, now_ms: float) -> None:
        """Use a moment without a frame."""
        waiting, link = self._waiting, self._link
        if waiting is None or self._flights or link.in_flight > 0 or not link.up:
            return
        forecast = link.forecast(now_ms)
        if forecast is None or not forecast.up or not self._in_the_gap(waiting.option, forecast, now_ms):
            return
        self._waiting = None
        if not waiting.early:
            self._tell(waiting.frame, True, now_ms)
            return
        flight = link.send(now_ms, waiting.frame, ATTEMPTS - 1, waiting.option, now_ms + PATIENCE_MS)
        if flight is None:
            self.count.skipped += 1
            return
        self._flights[flight.token] = waiting
        self.count.sent += 1
        self.count.uplink_bytes += waiting.option.payload_bytes

    def ended(self, flight: Flight, failure: str | None) -> bool:
        """Note the end of a flight; whether it was an audit."""
        audit = self._flights.pop(flight.token, None)
        if audit is not None and failure is None and flight.exit == self._world.last_exit:
            self._landed.append(audit)
        return audit is not None

    def _tell(self, frame: int, agreed: bool, now_ms: float) -> None:
        if self._learner is not None:
            self._learner.learn(Audited(frame, agreed), now_ms)

    def _in_the_gap(self, option: OffloadOption, forecast: LinkForecast, now_ms: float) -> bool:
        """Whether the link is free again when the next frame comes."""
        captured_ms = self._world.captured_ms
        upcoming = bisect_right(captured_ms, now_ms)
        whole_ms, empty_ms = forecast.median_ms(option), forecast.median_ms(replace(option, payload_bytes=0))
        if upcoming == len(captured_ms) or whole_ms is None or empty_ms is None:
            return True
        return now_ms + whole_ms - empty_ms < captured_ms[upcoming]

    def _option(self, stages_done: int) -> OffloadOption | None:
        """The smallest payload in hand that changes no answer."""
        options = [
            option for option in self._world.scenario.profile.options if option.boundary in (0, stages_done)
        ]
        return min(
            options, key=lambda option: (max(0.0, option.quality_cost), option.payload_bytes), default=None
        )
