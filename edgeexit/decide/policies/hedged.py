"""The recommended rule: expected gain by the deadline, with local computing as the hedge."""

from __future__ import annotations

from collections.abc import Sequence

from edgeexit.decide.calibration import QualityTable
from edgeexit.decide.decision import Action, Decision, InFlight, Situation
from edgeexit.decide.outlook import ScoreOutlook, outlooks
from edgeexit.decide.plans import is_priced, local_plan
from edgeexit.decide.sending import best_payload
from edgeexit.decide.stretches import STRETCH_SURE, asks_from, stretch_from

# A stage is begun when it may still end in time. The deadline timer keeps an overrun from delaying the
# answer; it only takes time from the next frame, so small odds are worth it.
RUN_PROBABILITY = 0.02
# A payload must promise this much quality net of its price. Where bytes cost nothing a faint hope is
# worth sending; only what cannot come in time at all is kept off the link.
SEND_GAIN = 1e-5
# Less than this much expected improvement left: the answer in hand is as good as the last exit's,
STOP_GAIN = 0.001
# and it is this good: then the frame is closed early. Where the answer is doubtful an improvement of
# nothing is only an estimate (± 0.02 from 200 samples a bin), and computing on costs nothing unless
# energy or time has a price.
STOP_QUALITY = 0.99
# Deeper exits are believed to be worse only from this difference on. Where two exits answer differently on an
# eighth of a bin of 250 samples, their difference there has a deviation of 0.022: these are two of them.
WORSE_BY = 0.04
# No reply that is under way is given less than this chance. Over the development traces (all rows of one
# device, two seeds of 800 frames) a policy that always waited had 56 of 4,884 replies in time of which the
# forecast had said at some moment that they were at most 1 % likely, 49 of them of the 4,633 that it held
# to be impossible. So a frame is closed before its reply only where waiting costs something.
FAINT_REPLY = 0.011
# A reply that is past its usual time is taken to need this share of that time again.
OVERDUE_SHARE = 0.25


class HedgedGain:
    """Sends what raises the expected quality at the deadline, and computes on while it is away.

    `tables` are the calibrations of the exits: with them a send may wait for the next score where
    bytes or energy have a price. `thresholds` (K,) are certified scores of a RiskControl: the first
    exit that reaches its own answers at once.
    Source: specification of the decision policy, section 3; the value of a further score is Howard's
    value of information (IEEE Trans. SSC, 1966).
    """

    __slots__ = ("_ask_from", "_outlooks", "_run_probability", "_send_gain", "_stop_gain", "_thresholds")

    def __init__(
        self,
        *,
        tables: Sequence[QualityTable] = (),
        thresholds: Sequence[float] | None = None,
        run_probability: float = RUN_PROBABILITY,
        send_gain: float = SEND_GAIN,
        stop_gain: float = STOP_GAIN,
    ) -> None:
        self._outlooks: tuple[ScoreOutlook, ...] = outlooks(tables)
        self._thresholds = None if thresholds is None else tuple(thresholds)
        self._run_probability = run_probability
        self._send_gain = send_gain
        self._stop_gain = stop_gain
        # Scores from which an exit may end a frame whose stages cost nothing and have time enough.
        self._ask_from = asks_from(tables, self._goes_on, self._thresholds)

    @property
    def name(self) -> str:
        """Name in reports."""
        return "hedged-gain"

    @property
    def anytime(self) -> bool:
        """It answers at the deadline with what it has."""
        return True

    def decide(self, situation: Situation) -> Decision:
        """The next action for this frame."""
        evidence = situation.evidence
        done = situation.stages_done
        limit_ms = situation.remaining_ms
        if evidence is None:
            if limit_ms <= 0.0:
                return _FIRST
            if not situation.options:
                # Nothing else can be done, whatever computing on is worth.
                return self._with_stretch(situation, _FIRST)
            held = 0.0
            quality = situation.prior_quality
        else:
            quality = evidence.expected_quality
            held = quality[evidence.exit]
            over = self._over(situation, held)
            if over is not None:
                return over
        in_flight = situation.in_flight
        link = situation.link
        reply = 0.0
        if in_flight is not None and link is not None:
            reply = link.reply_probability(in_flight, limit_ms)
        value, soonest, pays = local_plan(situation, quality, held, limit_ms, 1.0 - reply)
        if in_flight is None and link is not None and situation.options and link.up:
            option = best_payload(situation, quality, held, value, self._send_gain, self._outlooks)
            if option is not None:
                return Decision(Action.OFFLOAD, "gain", option)
        if evidence is None:
            return self._with_stretch(situation, _FIRST)
        if soonest == 0.0 and quality[done] >= held - WORSE_BY:
            soonest = situation.compute.probability_within(done, done + 1, limit_ms)
        if pays and soonest >= self._run_probability:
            return self._with_stretch(situation, _DEEPER)
        if in_flight is None:
            return _NOTHING_BETTER
        ahead = quality[situation.stage_count - 1] - held
        chance = max(reply, FAINT_REPLY)
        if ahead >= -WORSE_BY and chance * ahead >= _waiting_price(situation, in_flight):
            return Decision(Action.WAIT, "reply-expected", wait_ms=limit_ms)
        return _HOPELESS

    def _over(self, situation: Situation, held: float) -> Decision | None:
        """The end of a frame that has an answer, where the answer itself or the clock says so."""
        evidence = situation.evidence
        if evidence is None:
            return None
        if situation.remaining_ms <= 0.0:
            return _DEADLINE
        done = situation.stages_done
        if done >= situation.stage_count:
            return _LAST
        thresholds = self._thresholds
        if thresholds is not None and evidence.score >= thresholds[evidence.exit]:
            return _CERTIFIED
        if self._enough(evidence.expected_quality, held, done, priced=is_priced(situation)):
            return _CONFIDENT
        return None

    def _enough(self, quality: Sequence[float], held: float, done: int, *, priced: bool) -> bool:
        """Whether what is in hand is as good as what deeper exits promise. Shapes: quality (K,)."""
        ahead = max(quality[done:]) - held
        return ahead <= self._stop_gain and (held >= STOP_QUALITY or ahead < -WORSE_BY or priced)

    def _goes_on(self, quality: Sequence[float], held: float, done: int) -> bool:
        """What `decide` does where time is ample and costs nothing, and nothing can be sent."""
        if self._enough(quality, held, done, priced=False):
            return False
        return max(quality[done:]) > held or quality[done] >= held - WORSE_BY

    def _with_stretch(self, situation: Situation, decision: Decision) -> Decision:
        """The decision to go on, with all those that will follow where they are known already."""
        # A stretch grants its stages even odds; as times are learnt meanwhile they may fall a little.
        if self._run_probability > 0.5 * STRETCH_SURE:
            return decision
        stretch = stretch_from(situation, self._ask_from, then=_DEEPER, last=_LAST)
        return decision if stretch is None else Decision(decision.action, decision.reason, stretch=stretch)


def _waiting_price(situation: Situation, in_flight: InFlight) -> float:
    """What waiting for the reply costs: until it usually comes, or a while where that is past."""
    link = situation.link
    if situation.time_price <= 0.0 or link is None:
        # Waiting is free: a reply is welcome even where it is expected to be no better.
        return -WORSE_BY
    usual_ms = link.median_ms(in_flight.option)
    if usual_ms is None:
        usual_ms = situation.remaining_ms
    left_ms = max(usual_ms - in_flight.waited_ms, OVERDUE_SHARE * usual_ms)
    return situation.time_price * min(situation.remaining_ms, left_ms)


_FIRST = Decision(Action.CONTINUE, "first-answer")
_DEEPER = Decision(Action.CONTINUE, "deeper")
_DEADLINE = Decision(Action.EXIT, "deadline")
_LAST = Decision(Action.EXIT, "last-exit")
_CERTIFIED = Decision(Action.EXIT, "certified")
_CONFIDENT = Decision(Action.EXIT, "confident")
_NOTHING_BETTER = Decision(Action.EXIT, "nothing-better-in-time")
_HOPELESS = Decision(Action.EXIT, "reply-hopeless")
