"""One row of a study in full: what every policy did with each frame, for plots over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeexit.replay.contenders import FLOOR, OWN, contenders
from edgeexit.replay.controller import ControllerFactory
from edgeexit.replay.fleets import made_by, row_oracle, row_runs, row_worlds
from edgeexit.replay.outcome import Outcome
from edgeexit.replay.recording import Recording
from edgeexit.replay.scenarios import GridRow
from edgeexit.replay.study_figures import RowFigures
from edgeexit.replay.world import World

# What is drawn beside the policy and the floor: more lines than these cannot be told apart.
BESIDE = 4


@dataclass(frozen=True, slots=True, eq=False)
class Showcase:
    """A world with its runs by policy. Shapes: oracle_worth (F,), of the guarded latency oracle."""

    world: World
    runs: Mapping[str, Outcome]
    oracle_worth: NDArray[np.float64]


def showcase(
    row: GridRow,
    recording: Recording,
    *,
    seed: int,
    names: Sequence[str],
    policies: Mapping[str, ControllerFactory] | None = None,
) -> Showcase:
    """Replay the policy, the floor and some others on a row; of a fleet its first device is shown."""
    made = contenders() if policies is None else policies
    worlds = row_worlds(row, recording, (seed,))
    world = worlds[0]
    wanted = dict.fromkeys((OWN, FLOOR, *names))
    runs = {name: row_runs(worlds, made_by(made[name]), row.fleet)[0] for name in wanted if name in made}
    best = row_oracle(worlds, row.fleet)[0]
    return Showcase(world, runs, best.value - row.scenario.byte_price * best.payload_bytes)


def most_telling(figures: Sequence[RowFigures]) -> int:
    """The row to show: where the gap is largest among those where not everything is offloaded."""
    mixed = [
        (row.gap_points, index) for index, row in enumerate(figures) if 0.15 < row.policies[OWN].remote < 0.85
    ]
    return max(mixed or [(row.gap_points, index) for index, row in enumerate(figures)])[1]


def strongest(figures: Sequence[RowFigures], count: int = BESIDE) -> list[str]:
    """The baselines with the best mean objective over all rows, best first."""
    names = [name for name in figures[0].policies if name not in (OWN, FLOOR)]
    means = {
        name: float(np.mean([row.policies[name].objective for row in figures if name in row.policies]))
        for name in names
    }
    return sorted(means, key=lambda name: means[name], reverse=True)[:count]
