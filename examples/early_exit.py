"""Early exit on one image: run stage after stage, stop when the score promises enough.

    python examples/early_exit.py [BUNDLE [IMAGE]]

Without arguments it uses the tiny bundle of the tests, on an image of stripes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgeexit.bundle import open_bundle
from edgeexit.decide.answer import Record
from edgeexit.decide.budget import Budget, FixedBudget
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.policies.fixed import StaticThreshold
from edgeexit.engine import Engine, Frame
from edgeexit.runner.preprocess import read_image
from edgeexit.runner.selection import monotonic_ms, open_verified

HERE = Path(__file__).parent
TINY = HERE.parent / "tests" / "data" / "tiny_bundle"


def main(bundle_path: str = str(TINY), image_path: str = str(HERE / "stripes.png")) -> None:
    bundle = open_bundle(Path(bundle_path))
    image = read_image(Path(image_path))
    # Every variant of every stage is held against the golden vectors; the fastest correct one wins.
    runner, report = open_verified(bundle)
    seen: list[Record] = []
    with Engine(
        bundle,
        runner,
        policy=StaticThreshold(0.8),
        latency=LatencyModel(report.median_ms),
        budgets=FixedBudget(Budget(latency_ms=1000.0)),
        clock=monotonic_ms,
        emit=seen.append,
    ) as engine:
        answer = engine.answer(Frame(0, "example", monotonic_ms(), image))
    label = bundle.manifest.labels[answer.label] if answer.label is not None else "?"
    print(f"{label}, score {answer.score:.2f}, exit {answer.exit} of {bundle.manifest.stage_count - 1}")
    print(" → ".join(answer.route))


if __name__ == "__main__":
    main(*sys.argv[1:])
