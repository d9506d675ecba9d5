"""The recommended rule: expected gain by the deadline, with local computing as the hedge."""

from __future__ import annotations

from collections.abc import Sequence

from edgeexit.decide.calibration import QualityTable
from edgeexit.decide.decision import Action, Decision, OffloadOption, Situation
from edgeexit.decide.outlook import ScoreOutlook, outlooks

# A stage is begun when it may still end in time. The deadline timer keeps an overrun from delaying the
# answer; it only takes time from the next frame, so small odds are worth it.
RUN_PROBABILITY = 0.1
# A payload must promise this much quality net of its price. Where bytes cost nothing a faint hope is
# worth sending; only what cannot come in time at all is kept off the link.
SEND_GAIN = 1e-5
# Less than this much expected improvement left: the answer in hand is as good as the last exit's,
STOP_GAIN = 0.001
# and it is this good: then the frame is closed early. Where the answer is doubtful an improvement of
# nothing is only an estimate (± 0.02 from 200 samples a bin), and computing on costs nothing unless
# energy has a price.
STOP_QUALITY = 0.99
# Deeper exits are believed to be worse only from this difference on, the error of a bin of 200 samples.
WORSE_BY = 0.01
# A reply less likely than this is not waited for: the frame is closed, which cancels the request.
WAIT_PROBABILITY = 0.01


class HedgedGain:
    """Sends what raises the expected quality at the deadline, and computes on while it is away.

    `tables` are the calibrations of the exits: with them a send may wait for the next score where
    bytes or energy have a price. `thresholds` (K,) are certified scores of a RiskControl: the first
    exit that reaches its own answers at once.
    Source: specification of the decision policy, section 3; the value of a further score is Howard's
    value of information (IEEE Trans. SSC, 1966).
    """

    __slots__ = ("_outlooks", "_run_probability", "_send_gain", "_stop_gain", "_thresholds")

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
        last = situation.stage_count
        limit_ms = situation.remaining_ms
        if evidence is None:
            if limit_ms <= 0.0:
                return _FIRST
            held = 0.0
            quality = situation.prior_quality
        else:
            if limit_ms <= 0.0:
                return _DEADLINE
            if done >= last:
                return _LAST
            thresholds = self._thresholds
            if thresholds is not None and evidence.score >= thresholds[evidence.exit]:
                return _CERTIFIED
            quality = evidence.expected_quality
            held = quality[evidence.exit]
            ahead = max(quality[done:]) - held
            if ahead <= self._stop_gain and (
                held >= STOP_QUALITY or ahead < -WORSE_BY or situation.energy_price > 0.0
            ):
                return _CONFIDENT
        value, soonest = _local_value(situation, quality, held, limit_ms)
        in_flight = situation.in_flight
        link = situation.link
        reply = 0.0
        if in_flight is None:
            if link is not None and situation.options and link.up:
                option = self._choose(situation, quality, value, held, limit_ms)
                if option is not None:
                    return Decision(Action.OFFLOAD, "gain", option)
        elif link is not None:
            reply = link.reply_probability(in_flight, limit_ms)
        if evidence is None:
            return _FIRST
        if situation.energy_price > 0.0 and situation.stage_energy_mj:
            gain = (value - held) * (1.0 - reply)
            worthwhile = gain > situation.energy_price * situation.stage_energy_mj[done]
        else:
            worthwhile = True
        if soonest == 0.0 and quality[done] >= held - WORSE_BY:
            soonest = situation.compute.probability_within(done, done + 1, limit_ms)
        if worthwhile and soonest >= self._run_probability:
            return _DEEPER
        if reply > WAIT_PROBABILITY and quality[last - 1] >= held - WORSE_BY:
            return Decision(Action.WAIT, "reply-expected", wait_ms=limit_ms)
        return _NOTHING_BETTER if in_flight is None else _HOPELESS

    def _choose(
        self, situation: Situation, quality: Sequence[float], value: float, held: float, limit_ms: float
    ) -> OffloadOption | None:
        """The payload worth sending now, None where none is or a later one promises more."""
        link = situation.link
        if link is None:
            return None
        byte_price = situation.byte_price
        energy_price = situation.energy_price
        remote = quality[situation.stage_count - 1]
        chosen: OffloadOption | None = None
        most = self._send_gain
        for option in situation.options:
            ahead = remote * (1.0 - option.quality_cost) - value
            if ahead <= most:
                continue
            price = byte_price * option.payload_bytes + energy_price * option.energy_mj
            if ahead - price <= most:
                continue
            gain = link.probability_within(option, limit_ms) * ahead - price
            if gain > most and option.encode_ms > 0.0:
                # Encoding takes the processor from the stages.
                then, _ = _local_value(situation, quality, held, limit_ms - option.encode_ms)
                gain -= max(0.0, value - then)
            if gain > most:
                most = gain
                chosen = option
        if chosen is not None and self._later_gain(situation, remote, value, limit_ms) > most:
            return None
        return chosen

    def _later_gain(self, situation: Situation, remote: float, value: float, limit_ms: float) -> float:
        """Expected gain of deciding about sending after more stages instead of now."""
        done = situation.stages_done
        link = situation.link
        if link is None or done + 1 >= situation.stage_count:
            return 0.0
        compute = situation.compute
        most = 0.0
        priced = situation.byte_price > 0.0 or situation.energy_price > 0.0
        next_ms = compute.median_ms(done, done + 1)
        if priced and done < len(self._outlooks):
            most = self._scored_gain(situation, limit_ms - next_ms)
        for option in situation.later_options:
            boundary = option.boundary
            if boundary <= done or (priced and boundary == done + 1 and self._outlooks):
                continue
            left_ms = limit_ms - (next_ms if boundary == done + 1 else compute.median_ms(done, boundary))
            ahead = remote * (1.0 - option.quality_cost) - value
            if ahead <= most or left_ms <= 0.0:
                continue
            price = situation.byte_price * option.payload_bytes + situation.energy_price * option.energy_mj
            most = max(most, link.probability_within(option, left_ms) * ahead - price)
        return most

    def _scored_gain(self, situation: Situation, limit_ms: float) -> float:
        """Expected gain of sending after the next score, when only the doubtful frames are sent."""
        link = situation.link
        if link is None or limit_ms <= 0.0:
            return 0.0
        done = situation.stages_done
        candidates: list[tuple[float, float, float]] = []
        for options in (situation.options, situation.later_options):
            for option in options:
                if option.boundary in (0, done + 1):
                    price = (
                        situation.byte_price * option.payload_bytes
                        + situation.energy_price * option.energy_mj
                    )
                    chance = link.probability_within(option, limit_ms)
                    if chance > price:
                        candidates.append((chance, 1.0 - option.quality_cost, price))
        if not candidates:
            return 0.0
        last = situation.stage_count
        compute = situation.compute
        chances = [compute.probability_within(done + 1, stop, limit_ms) for stop in range(done + 2, last + 1)]
        evidence = situation.evidence
        expected = None if evidence is None else evidence.expected_quality[done]
        total = 0.0
        for mass, row in self._outlooks[done].groups(expected):
            value = top = row[done]
            for chance, reached in zip(chances, row[done + 1 :], strict=True):
                if reached > top:
                    value += chance * (reached - top)
                    top = reached
            remote = row[last - 1]
            best = 0.0
            for chance, kept, price in candidates:
                gain = chance * (remote * kept - value) - price
                if gain > best:
                    best = gain
            total += mass * best
        return total


def _local_value(
    situation: Situation, quality: Sequence[float], held: float, limit_ms: float
) -> tuple[float, float]:
    """Expected quality at the deadline without the link, and the chance of the first better exit."""
    compute = situation.compute
    done = situation.stages_done
    value = top = held
    soonest = 0.0
    for stop in range(done + 1, situation.stage_count + 1):
        reached = quality[stop - 1]
        if reached > top:
            chance = compute.probability_within(done, stop, limit_ms)
            if chance <= 0.0:
                break
            if soonest == 0.0:
                soonest = chance
            value += chance * (reached - top)
            top = reached
    return value, soonest


_FIRST = Decision(Action.CONTINUE, "first-answer")
_DEEPER = Decision(Action.CONTINUE, "deeper")
_DEADLINE = Decision(Action.EXIT, "deadline")
_LAST = Decision(Action.EXIT, "last-exit")
_CERTIFIED = Decision(Action.EXIT, "certified")
_CONFIDENT = Decision(Action.EXIT, "confident")
_NOTHING_BETTER = Decision(Action.EXIT, "nothing-better-in-time")
_HOPELESS = Decision(Action.EXIT, "reply-hopeless")
