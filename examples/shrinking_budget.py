"""A budget that shrinks from frame to frame: the answers come earlier, from earlier exits.

    python examples/shrinking_budget.py [BUNDLE]

The tiny bundle of the tests answers within microseconds, so every stage is given another 100 ms here,
as a small board would need for a real one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from edgeexit.bundle import open_bundle
from edgeexit.decide.answer import Record
from edgeexit.decide.budget import Budget, LatestBudget
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.policies.local import AnytimeLocal
from edgeexit.engine import Engine, Frame
from edgeexit.runner.litert import LiteRTRunner
from edgeexit.runner.preprocess import read_image
from edgeexit.runner.protocol import StageOutput, Tensors
from edgeexit.runner.selection import monotonic_ms, open_verified

HERE = Path(__file__).parent
TINY = HERE.parent / "tests" / "data" / "tiny_bundle"
STAGE_MS = 100.0


class SlowRunner:
    """A runner in front of another one: this is all that the engine asks of either."""

    def __init__(self, runner: LiteRTRunner) -> None:
        self._runner = runner
        self.stage_count = runner.stage_count
        self.variant = runner.variant
        self.close = runner.close

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        time.sleep(STAGE_MS / 1000.0)
        return self._runner.run(stage, tensors)


def main(bundle_path: str = str(TINY)) -> None:
    bundle = open_bundle(Path(bundle_path))
    image = read_image(HERE / "stripes.png")
    runner, report = open_verified(bundle)
    budgets = LatestBudget(Budget(latency_ms=5000.0))
    seen: list[Record] = []
    with Engine(
        bundle,
        SlowRunner(runner),
        policy=AnytimeLocal(),
        latency=LatencyModel([STAGE_MS + median for median in report.median_ms]),
        budgets=budgets,
        clock=monotonic_ms,
        emit=seen.append,
    ) as engine:
        for number, latency_ms in enumerate((3000.0, 275.0, 150.0, 50.0)):
            budgets.set(Budget(latency_ms))
            answer = engine.answer(Frame(number, "example", monotonic_ms(), image))
            print(
                f"budget {answer.deadline_ms:5.0f} ms: exit {answer.exit} after {answer.latency_ms:5.1f} ms "
                f"({answer.reason})"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
