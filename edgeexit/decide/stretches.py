"""Stretches: decisions that a policy can make beforehand, because no score and no clock will change them.

Where nothing can be sent, time is ample and computing on costs nothing, whether a frame goes on depends on
its scores alone, and tables say from which score on it may end. Below that the next decision is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from edgeexit.decide.calibration import QualityTable
from edgeexit.decide.decision import Decision, Situation, Stretch

# A stage may take this many times its median before the policy is asked again: what was known of times
# when the stretch began then still bounds what would be known now.
SLOWER = 2.0
# The rest of the stages must end in time with this probability, were they all that much slower and had
# this much more.
STRETCH_SURE = 0.5
SPARE = 1.25
# Asked after whatever score: no stretch crosses this exit.
ALWAYS = -inf
# A score that none exceeds: only one that says nothing (0) is asked about.
BEYOND = 1.0 + 1e-9

GoesOn = Callable[[Sequence[float], float, int], bool]
"""Whether a frame goes on, given qualities (K,) of all exits, the quality in hand, and stages done."""


def asks_from(
    tables: Sequence[QualityTable], goes_on: GoesOn, thresholds: Sequence[float] | None
) -> tuple[float, ...]:
    """For every exit the score from which it may end a frame; infinite where no score does.

    An exit whose score is 0 leaves the answer of an earlier one in hand: an exit is infinite only where
    that changes nothing either. Shapes: tables (K,) or empty, thresholds (K,), result (K,) or empty.
    """
    found: list[float] = []
    held_before: set[float] = set()
    for table in tables:
        exit_ = table.exit
        done = exit_ + 1
        if done == len(tables):
            found.append(inf)
            break
        own = [row[exit_] for row in table.rows]
        ends = [
            index
            for index, (row, held) in enumerate(zip(table.rows, own, strict=True))
            if not goes_on(row, held, done)
        ]
        if ends:
            # Bin i holds the scores above the upper score of bin i - 1.
            first = table.upper_scores[ends[0] - 1] if ends[0] > 0 else ALWAYS
        else:
            silent = table.expected(0.0)
            first = inf if all(goes_on(silent, held, done) for held in held_before) else BEYOND
        if thresholds is not None and thresholds[exit_] <= 1.0:
            first = min(first, thresholds[exit_])
        found.append(first)
        held_before.update(own)
    return tuple(found)


def stretch_from(
    situation: Situation, ask_from: tuple[float, ...], *, then: Decision, last: Decision
) -> Stretch | None:
    """The stretch that begins with the next stage; None where the policy has to be asked after it.

    Shapes: ask_from (K,), of `asks_from`, or empty.
    """
    done, count = situation.stages_done, situation.stage_count
    if len(ask_from) != count or situation.in_flight is not None:
        return None
    if situation.options or situation.later_options:
        return None
    if situation.time_price > 0.0 or situation.stage_energy_mj:
        return None  # computing on costs something, or will once energy has a price
    evidence = situation.evidence
    if evidence is not None and evidence.exit >= done:
        return None  # a gateway's answer of an exit that is still to come here
    stop = done + 1
    while stop < count and ask_from[stop - 1] > 0.0:
        stop += 1
    if stop == done + 1 and stop < count:
        return None
    compute = situation.compute
    left_ms = compute.median_ms(done, count)
    # All other limits follow from this one: stages up to `SLOWER` times slower raise no estimate further.
    if SLOWER * SPARE * left_ms > situation.remaining_ms:
        return None
    if compute.probability_within(done, count, SPARE * left_ms) < STRETCH_SURE:
        return None
    slowest_ms, least_ms = [0.0] * done, [0.0] * done
    for stage in range(done + 1, count + 1):
        then_left_ms = compute.median_ms(stage, count)
        slowest_ms.append(SLOWER * (left_ms - then_left_ms))
        least_ms.append(SLOWER * SPARE * then_left_ms)
        left_ms = then_left_ms
    return Stretch(stop, ask_from, tuple(slowest_ms), tuple(least_ms), then, last)
