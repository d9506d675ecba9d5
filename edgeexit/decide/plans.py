"""What computing on is worth: expected quality at the deadline, less what time and energy cost."""

from __future__ import annotations

from collections.abc import Sequence

from edgeexit.decide.decision import Situation


def is_priced(situation: Situation) -> bool:
    """Whether computing on costs anything."""
    return situation.time_price > 0.0 or (situation.energy_price > 0.0 and bool(situation.stage_energy_mj))


def local_plan(
    situation: Situation, quality: Sequence[float], held: float, limit_ms: float, needed: float = 1.0
) -> tuple[float, float, bool]:
    """Value of computing on without the link, the chance of the first better exit, whether it pays.

    The deadline timer emits the best exit reached, so each exit counts with the chance to be reached:
    value = held + sum of P(T <= limit) · improvement. Where time or energy has a price, the depth with
    the best value less its costs is the plan; where they have none, all stages are.
    `needed` is the probability that the local answer will be needed at all, `held` the quality of the
    answer in hand, 0 before the first. Shapes: quality (K,).
    """
    if is_priced(situation):
        return _priced_plan(situation, quality, held, limit_ms, needed)
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
    return value, soonest, True


def _priced_plan(
    situation: Situation, quality: Sequence[float], held: float, limit_ms: float, needed: float
) -> tuple[float, float, bool]:
    compute = situation.compute
    done = situation.stages_done
    energies = situation.stage_energy_mj if situation.energy_price > 0.0 else ()
    # The first stage is always run: its costs are no reason for or against anything.
    free = done + 1 if situation.evidence is None else done
    gained = spent = best = soonest = 0.0
    if free > done:
        best = -1.0
    top = held
    for stop in range(done + 1, situation.stage_count + 1):
        chance = compute.probability_within(done, stop, limit_ms)
        if chance <= 0.0:
            break
        reached = quality[stop - 1]
        if reached > top:
            if soonest == 0.0:
                soonest = chance
            gained += needed * chance * (reached - top)
            top = reached
        if stop > free:
            if energies:
                spent += situation.energy_price * energies[stop - 1]
            net = gained - spent - situation.time_price * compute.median_ms(free, stop)
        else:
            net = gained
        if net > best:
            best = net
    return held + max(0.0, best), soonest, best > 0.0
