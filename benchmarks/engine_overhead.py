"""What the engine costs over running the network bare.

    python -m benchmarks.engine_overhead [--pairs N]

Each pair answers one image twice, in turns which of the two goes first: by the whole engine (preprocessing,
decisions, deadline timer, four stage files, judging, the answer) to the last exit, and by one plain
interpreter that invokes the unsplit network with the same heads. Both begin with the 8-bit image.
One thread, f32. Targets: ratio_p50 ≤ 1.03, decision_us_p50 ≤ 50.

In pairs of their own, as many, the runner alone goes in the engine's place: the same preprocessing, the four
stage files one after the other, nothing judged and nothing decided. `stages_ratio_p50` is thus what cutting
the network costs before a line of the engine has run, and `engine_us` what the engine adds to it. A stage
streams its weights through the caches: after each, the interpreter's code and data come from memory again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks._random_vit import random_images, vit_tiny_bundle, vit_tiny_whole
from benchmarks.results import publish
from edgeexit.bundle import open_bundle
from edgeexit.bundle.manifest import Manifest
from edgeexit.decide.answer import Answer, Record
from edgeexit.decide.budget import Budget, FixedBudget
from edgeexit.decide.calibration import quality_tables
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.engine import Engine, Frame
from edgeexit.runner.litert import LiteRTRunner
from edgeexit.runner.preprocess import input_tensors
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.runner.runtime import find_runtime
from edgeexit.runner.selection import monotonic_ms

# The first runs pack weights and fill caches.
WARM_UP_PAIRS = 8
# The two kinds of pairs take turns in blocks, so that a slow minute meets both; even, so that in each kind
# either side goes first equally often.
BLOCK_PAIRS = 10
# Far above what four stages take anywhere: the last exit is always reached.
BUDGET_MS = 10_000.0


@dataclass(frozen=True, slots=True)
class Result:
    """Units: ratio, engine over plain; the p50 of the ratios of pairs; stages_ratio, bare stages over plain;
    engine_us, the difference of the two for a network that takes plain_ms_p50.
    """

    ratio_p50: float
    ratio_p95: float
    stages_ratio_p50: float
    engine_us: float
    engine_ms_p50: float
    plain_ms_p50: float
    decision_us_p50: float
    decision_us_p95: float
    decisions_per_answer: float
    pairs: int
    threads: int
    exits: int
    network: str


class PlainNetwork:
    """One interpreter, one file, as one would write it without edgeexit."""

    def __init__(self) -> None:
        self._interpreter = find_runtime().make(vit_tiny_whole(), 1)
        self._interpreter.allocate_tensors()
        signature = self._interpreter.get_signature_runner("serving_default")
        (taken,) = signature.get_input_details().values()
        given = signature.get_output_details()
        self._input = int(str(taken["index"]))
        self._outputs = [int(str(given[name]["index"])) for name in sorted(given)]

    def answer(self, image: NDArray[np.float32]) -> NDArray[np.generic]:
        """The last exit's logits; the others are computed and fetched too. Shapes: image (1, 3, 224, 224)."""
        self._interpreter.set_tensor(self._input, image)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs][-1]


class BareStages:
    """The stage files one after the other: what the engine does, less all that it decides."""

    def __init__(self, manifest: Manifest, runner: Runner) -> None:
        self._preprocessing = manifest.preprocessing
        self._input = manifest.boundaries[0].tensors[0]
        self._runner = runner

    def answer(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The last exit's logits. Shapes: image (224, 224, 3)."""
        tensors: Tensors = input_tensors(image, self._preprocessing, self._input)
        for stage in range(self._runner.stage_count):
            done = self._runner.run(stage, tensors)
            tensors = done.boundary
        return done.output


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description="engine against one plain interpreter")
    parser.add_argument("--pairs", type=int, default=150)
    pairs = parser.parse_args().pairs
    bundle = open_bundle(vit_tiny_bundle())
    exits = bundle.manifest.stage_count
    plain = PlainNetwork()
    images = random_images(16, seed=2)
    records: list[Record] = []
    answers: list[Answer] = []
    ratios: list[float] = []
    stages_ratios: list[float] = []
    engine_ms: list[float] = []
    plain_ms: list[float] = []
    with (
        LiteRTRunner(bundle, dict.fromkeys(range(exits), "f32")) as runner,
        Engine(
            bundle,
            runner,
            policy=HedgedGain(tables=quality_tables(bundle.manifest.exits, ["f32"] * exits)),
            latency=LatencyModel([10.0] * exits),
            budgets=FixedBudget(Budget(latency_ms=BUDGET_MS)),
            clock=monotonic_ms,
            emit=records.append,
        ) as engine,
    ):
        stages = BareStages(bundle.manifest, runner)

        def run_engine(number: int) -> float:
            image = images[number % len(images)].transpose(1, 2, 0)  # 3 H W -> H W 3
            began_s = perf_counter()
            answers.append(engine.answer(Frame(number, "noise", monotonic_ms(), image)))
            return (perf_counter() - began_s) * 1000.0

        def run_plain(number: int) -> float:
            image = images[number % len(images)]
            began_s = perf_counter()
            plain.answer(image[None] / np.float32(255))  # 3 H W -> 1 3 H W; both begin with 8-bit pixels
            return (perf_counter() - began_s) * 1000.0

        def run_stages(number: int) -> float:
            image = images[number % len(images)].transpose(1, 2, 0)  # 3 H W -> H W 3
            began_s = perf_counter()
            stages.answer(image)
            return (perf_counter() - began_s) * 1000.0

        def compare(run: Callable[[int], float], numbers: range) -> Iterator[tuple[float, float]]:
            for number in numbers:
                if number % 2:
                    ours, bare = run(number), run_plain(number)
                else:
                    bare, ours = run_plain(number), run(number)
                if number >= WARM_UP_PAIRS:
                    yield ours, bare

        last = WARM_UP_PAIRS + pairs
        for first in range(0, last, BLOCK_PAIRS):
            numbers = range(first, min(first + BLOCK_PAIRS, last))
            for ours, bare in compare(run_engine, numbers):
                ratios.append(ours / bare)
                engine_ms.append(ours)
                plain_ms.append(bare)
            stages_ratios += [ours / bare for ours, bare in compare(run_stages, numbers)]
            if engine_ms:
                latest = f"engine {engine_ms[-1]:.1f} ms, plain {plain_ms[-1]:.1f} ms"
                print(f"pair {numbers.stop:>4}/{last}: {latest}")
    if any(answer.exit != exits - 1 for answer in answers):
        raise SystemExit("an answer came from an early exit: nothing was compared")
    decisions_us = [time_us for answer in answers[WARM_UP_PAIRS:] for time_us in answer.decision_us]
    ratio_p50, stages_ratio_p50, plain_ms_p50 = median(ratios), median(stages_ratios), median(plain_ms)
    publish(
        "engine_overhead",
        Result(
            ratio_p50=round(ratio_p50, 4),
            ratio_p95=round(float(np.quantile(ratios, 0.95)), 4),
            stages_ratio_p50=round(stages_ratio_p50, 4),
            engine_us=round((ratio_p50 - stages_ratio_p50) * plain_ms_p50 * 1000.0, 1),
            engine_ms_p50=round(median(engine_ms), 3),
            plain_ms_p50=round(plain_ms_p50, 3),
            decision_us_p50=round(median(decisions_us), 2),
            decision_us_p95=round(float(np.quantile(decisions_us, 0.95)), 2),
            decisions_per_answer=len(decisions_us) / pairs,
            pairs=pairs,
            threads=1,
            exits=exits,
            network=bundle.manifest.provenance.network,
        ),
    )


if __name__ == "__main__":
    main()
