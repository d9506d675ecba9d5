"""Which payload is worth sending now: its expected gain, against that of deciding later.

The gain of a payload is P(reply in time) · (quality of the reply - value of computing on) - its price.
A smaller payload one stage away, or the score of that stage where bytes have a price, may be worth
waiting for; then nothing is sent yet.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeexit.decide.decision import LinkForecast, OffloadOption, Situation
from edgeexit.decide.outlook import ScoreOutlook
from edgeexit.decide.plans import local_plan

# A later send must promise this many times what a send now does: forecasts are no finer than one in
# some twenty, and what is sent now has come when a budget is cut or a stage stalls.
LATER_AHEAD = 1.1
# While nothing is in hand and the first stage may be late (less sure than the anytime floor asks for), a
# payload that is less likely than not to be answered is not encoded: an answer that encoding delayed past
# its deadline would be late because of the network.
FIRST_ANSWER_SURE = 0.95
FIRST_REPLY_LIKELY = 0.5


def best_payload(
    situation: Situation,
    quality: Sequence[float],
    held: float,
    value: float,
    least_gain: float,
    outlooks: Sequence[ScoreOutlook],
) -> OffloadOption | None:
    """The payload to send now; None where none gains, or where a later decision promises more.

    `value` is that of computing on, `held` the quality in hand. Shapes: quality (K,), outlooks (K,) or
    empty.
    """
    link = situation.link
    if link is None:
        return None
    limit_ms = situation.remaining_ms
    remote = quality[situation.stage_count - 1]
    chosen: OffloadOption | None = None
    most = least_gain
    for option in situation.options:
        ahead = remote * (1.0 - option.quality_cost) - value
        if situation.time_price > 0.0:
            ahead -= _time_cost(situation, link, option)
        if ahead <= most:
            continue
        price = _price(situation, option) + link.request_price(option)
        if ahead - price <= most:
            continue
        chance = link.probability_within(option, limit_ms)
        gain = chance * ahead - price
        if gain > most and option.encode_ms > 0.0:
            if chance < FIRST_REPLY_LIKELY and _delays_first_answer(situation, option):
                continue
            # Encoding takes the processor from the stages, which matters where no reply comes.
            then = local_plan(situation, quality, held, limit_ms - option.encode_ms)[0]
            gain -= (1.0 - chance) * max(0.0, value - then)
        if gain > most:
            most = gain
            chosen = option
    if chosen is None or _later_gain(situation, link, remote, value, outlooks) > LATER_AHEAD * most:
        return None
    return chosen


def _delays_first_answer(situation: Situation, option: OffloadOption) -> bool:
    """Whether encoding may make the first answer late."""
    if situation.evidence is not None:
        return False
    left_ms = situation.remaining_ms - option.encode_ms
    done = situation.stages_done
    return situation.compute.probability_within(done, done + 1, left_ms) < FIRST_ANSWER_SURE


def _price(situation: Situation, option: OffloadOption) -> float:
    return situation.byte_price * option.payload_bytes + situation.energy_price * option.energy_mj


def _time_cost(situation: Situation, link: LinkForecast, option: OffloadOption) -> float:
    """Price of the time until the reply, less the first stage's, which is run in any case."""
    usual_ms = link.median_ms(option)
    if usual_ms is None:
        return 0.0
    busy_ms = 0.0
    if situation.evidence is None:
        busy_ms = situation.compute.median_ms(situation.stages_done, situation.stages_done + 1)
    return situation.time_price * max(0.0, min(usual_ms, situation.remaining_ms) - busy_ms)


def _later_gain(
    situation: Situation,
    link: LinkForecast,
    remote: float,
    value: float,
    outlooks: Sequence[ScoreOutlook],
) -> float:
    """Expected gain of deciding about sending after more stages instead of now."""
    done = situation.stages_done
    if done + 1 >= situation.stage_count:
        return 0.0
    compute = situation.compute
    most = 0.0
    scored = bool(outlooks) and (situation.byte_price > 0.0 or situation.energy_price > 0.0)
    next_ms = compute.median_ms(done, done + 1)
    if scored:
        most = _scored_gain(situation, link, situation.remaining_ms - next_ms, outlooks[done])
    for option in situation.later_options:
        boundary = option.boundary
        if boundary <= done or (scored and boundary == done + 1):
            continue
        ahead = remote * (1.0 - option.quality_cost) - value
        if ahead <= most:
            continue
        left_ms = situation.remaining_ms
        left_ms -= next_ms if boundary == done + 1 else compute.median_ms(done, boundary)
        if left_ms <= 0.0:
            continue
        price = _price(situation, option) + link.request_price(option)
        most = max(most, link.probability_within(option, left_ms) * ahead - price)
    return most


def _scored_gain(situation: Situation, link: LinkForecast, limit_ms: float, outlook: ScoreOutlook) -> float:
    """Expected gain of sending after the next score, when only the doubtful frames are sent."""
    if limit_ms <= 0.0:
        return 0.0
    done = situation.stages_done
    candidates: list[tuple[float, float, float]] = []
    for options in (situation.options, situation.later_options):
        for option in options:
            if option.boundary in (0, done + 1):
                price = _price(situation, option) + link.request_price(option)
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
    for mass, row in outlook.groups(expected):
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
