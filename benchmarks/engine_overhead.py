"""What the engine costs over running the network bare.

    python -m benchmarks.engine_overhead [--pairs N]

Each pair answers one image twice, in turns which of the two goes first: by the whole engine to the last
exit, and by one plain interpreter that invokes the unsplit network with the same heads. Both begin with the
8-bit image. One thread, f32. Targets: ratio_p50 ≤ 1.03, decision_us_p50 ≤ 50.

A stage streams its weights through the caches: after each, the interpreter's code and data come from memory
again, and what is done between stages costs several times what it costs in a loop. What has to be done there
depends on what is known beforehand. Four engines, in pairs of their own, as many of each:

- `ratio_p50`: the policy of a device daemon with no gateway in reach and a budget with room (2.5 times
  what the stages take, or more), where exits may end a frame as those of trained networks do. Its first
  decision covers the whole frame as long as no link comes up, no stage stalls, the budget keeps that room
  and no exit seems sure: between stages these are checked, by a clock, the budget and two large
  logits; scores are not computed and the policy is not asked. The last exit alone is judged. Everything
  else is as ever: preprocessing, deadline timer, four stages, learning of stage times, the answer.
- `unscored_ratio_p50`: the same, where no score could end a frame early, as the tables of this network of
  random weights have it: then not even the logits are looked at.
- `judged_ratio_p50`: every exit is judged and the policy is asked after each, as where time is short; here
  because it was given no tables, from which alone it knows its decisions beforehand. `decision_us_p50` is
  of these decisions.
- `linked_ratio_p50`: the worst case: a link is up too, and the policy sees all that could be sent after
  each exit (bytes being so dear that it sends nothing: what a send costs is measured by offload_rtt).
  `linked_decision_us_p50` is of these decisions.

In further pairs the runner alone goes in the engine's place: the same preprocessing, the four stages one
after the other, nothing judged and nothing decided. `stages_ratio_p50` is thus what cutting the network costs
before a line of the engine has run, and the three `…engine_us` what an engine adds to it.

The runner is a device's: stages of one interpreter, from the one file that `open_verified` makes of theirs
beside its report. `separate_ratio_p50` and `separate_stages_ratio_p50` are of stages that have an interpreter
each, as where no such file can be had.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks._random_vit import BUILD, random_images, vit_tiny_bundle, vit_tiny_whole
from benchmarks.results import publish
from edgeexit.bundle import Bundle, open_bundle
from edgeexit.bundle.manifest import Calibration, Manifest
from edgeexit.decide.answer import Answer, Record
from edgeexit.decide.budget import Budget, FixedBudget
from edgeexit.decide.calibration import QualityTable, quality_tables, tables_of
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.policies.hedged import HedgedGain
from edgeexit.decide.policies.paced import Paced
from edgeexit.decide.spending import Spending
from edgeexit.engine import Engine, Frame
from edgeexit.errors import LinkDown
from edgeexit.runner.litert import LiteRTRunner
from edgeexit.runner.preprocess import input_tensors
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.runner.runtime import find_runtime
from edgeexit.runner.selection import monotonic_ms, open_verified
from edgeexit.transport.protocol import LinkStatus, OffloadReply, OffloadRequest, Pong

# The first runs pack weights and fill caches.
WARM_UP_PAIRS = 8
# The kinds of pairs take turns in blocks, so that a slow minute meets all; even, so that in each kind
# either side goes first equally often.
BLOCK_PAIRS = 10
# Far above what four stages take anywhere: the last exit is always reached.
BUDGET_MS = 10_000.0


# With this price of a byte no payload is worth sending.
DEAR = 1.0
# Exits of the tables that may end a frame do so from this score on: the network's own scores are far below.
SURE = 0.9


@dataclass(frozen=True, slots=True)
class Result:
    """Units: ratio, engine over plain, p50 of the ratios of pairs; stages_ratio, bare stages over plain;
    engine_us, the difference of the two for a network that takes plain_ms_p50; decision_us, of decisions
    after every exit.
    """

    ratio_p50: float
    ratio_p95: float
    unscored_ratio_p50: float
    judged_ratio_p50: float
    linked_ratio_p50: float
    stages_ratio_p50: float
    separate_ratio_p50: float
    separate_stages_ratio_p50: float
    engine_us: float
    judged_engine_us: float
    linked_engine_us: float
    engine_ms_p50: float
    plain_ms_p50: float
    decision_us_p50: float
    decision_us_p95: float
    linked_decision_us_p50: float
    decisions_per_answer: float
    judged_decisions_per_answer: float
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
    """The stages one after the other: what the engine does, less all that it decides."""

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


class IdleLink:
    """A link that is up and over which nothing is worth sending."""

    def open(self) -> None:
        """Nothing to connect."""

    def status(self) -> LinkStatus:
        """Up, and free."""
        return LinkStatus(up=True, gateways=1, in_flight=0, in_flight_bytes=0, largest_payload_bytes=1 << 20)

    def submit(self, request: OffloadRequest) -> Future[OffloadReply]:
        """Never asked for. Raises: LinkDown."""
        raise LinkDown("nothing was to be sent")

    def withdraw(self, reply: Future[OffloadReply]) -> int:
        """Never asked for."""
        return 0

    def probe(self, payload_bytes: int) -> Future[Pong]:
        """A probe whose answer is still to come."""
        return Future()

    def close(self) -> None:
        """Nothing to end."""


def sure_tables(exits: int) -> tuple[QualityTable, ...]:
    """Tables of exits that promise more with depth, and end a frame where they are sure."""
    doubtful = [0.5 + 0.4 * (exit_ + 1) / exits for exit_ in range(exits)]
    return tables_of(
        [
            Calibration(
                variant="f32",
                temperature=1.0,
                upper_scores=(SURE, 1.0),
                quality=tuple((doubtful[deeper], 1.0) for deeper in range(exit_, exits)),
                accuracy=doubtful[exit_],
                samples=1000,
            )
            for exit_ in range(exits)
        ]
    )


@dataclass(frozen=True, slots=True)
class Side:
    """One of the engines, or the bare stages, beside the plain network. Units: ratios of pairs."""

    answer: Callable[[int], Answer | None]
    last_exit: int
    engine: Engine | None = None
    ratios: list[float] = field(default_factory=list)
    own_ms: list[float] = field(default_factory=list)
    plain_ms: list[float] = field(default_factory=list)
    decisions_us: list[float] = field(default_factory=list)
    counted: list[bool] = field(default_factory=list)
    """Whether an answer was of the last exit and nothing was sent for it."""

    def compare(self, numbers: range, plain: Callable[[int], object]) -> None:
        """Answer these images on both sides, in turns which goes first; the first pairs do not count."""
        # One engine is open at a time: no timer of another one looks at its clock meanwhile.
        with nullcontext() if self.engine is None else self.engine:
            self._compare(numbers, plain)

    def _compare(self, numbers: range, plain: Callable[[int], object]) -> None:
        for number in numbers:
            plain_ms = 0.0 if number % 2 else _timed_ms(plain, number)
            began_s = perf_counter()
            answer = self.answer(number)
            own_ms = (perf_counter() - began_s) * 1000.0
            plain_ms = plain_ms if plain_ms else _timed_ms(plain, number)
            if number >= WARM_UP_PAIRS:
                self.ratios.append(own_ms / plain_ms)
                self.own_ms.append(own_ms)
                self.plain_ms.append(plain_ms)
                if answer is not None:
                    # Answers are not kept: a device hands them over, and their memory serves the next one.
                    self.decisions_us.extend(answer.decision_us)
                    self.counted.append(answer.exit == self.last_exit and not answer.offloads)


def _timed_ms(run: Callable[[int], object], number: int) -> float:
    began_s = perf_counter()
    run(number)
    return (perf_counter() - began_s) * 1000.0


def _handed_over(record: Record) -> None:
    """Where a device has its sinks."""


def engine_side(
    bundle: Bundle,
    runner: Runner,
    images: Sequence[NDArray[np.uint8]],
    tables: Sequence[QualityTable],
    link: IdleLink | None = None,
) -> Side:
    """An engine with the policy of a daemon. Shapes: images (3, 224, 224) each."""
    engine = Engine(
        bundle,
        runner,
        policy=Paced(HedgedGain(tables=tables)),
        latency=LatencyModel([10.0] * runner.stage_count),
        budgets=FixedBudget(Budget(latency_ms=BUDGET_MS)),
        clock=monotonic_ms,
        emit=_handed_over,
        transport=link,
        spending=Spending(byte_price=DEAR),
    )

    def answer(number: int) -> Answer:
        image = images[number % len(images)].transpose(1, 2, 0)  # 3 H W -> H W 3
        return engine.answer(Frame(number, "noise", monotonic_ms(), image))

    return Side(answer, bundle.manifest.stage_count - 1, engine)


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description="engine against one plain interpreter")
    parser.add_argument("--pairs", type=int, default=150)
    pairs = parser.parse_args().pairs
    bundle = open_bundle(vit_tiny_bundle())
    exits = bundle.manifest.stage_count
    network = PlainNetwork()
    images = list(random_images(16, seed=2))

    def run_plain(number: int) -> None:
        # 3 H W -> 1 3 H W; both begin with 8-bit pixels
        network.answer(images[number % len(images)][None] / np.float32(255))

    cache = BUILD / "engine_overhead" / "selection.json"
    runner, report = open_verified(bundle, prefer="f32", cache=cache)
    if not report.together:
        raise SystemExit("the stages cannot be run by one interpreter here: nothing was compared")
    with runner, LiteRTRunner(bundle, dict.fromkeys(range(exits), "f32")) as alone:
        own = quality_tables(bundle.manifest.exits, ["f32"] * exits)
        sure = sure_tables(exits)

        def stages_of(used: Runner) -> Side:
            bare = BareStages(bundle.manifest, used)

            def run_bare(number: int) -> None:
                bare.answer(images[number % len(images)].transpose(1, 2, 0))  # 3 H W -> H W 3

            return Side(run_bare, exits - 1)

        ours = engine_side(bundle, runner, images, sure)
        unscored = engine_side(bundle, runner, images, own)
        judged = engine_side(bundle, runner, images, ())
        linked = engine_side(bundle, runner, images, sure, IdleLink())
        separate = engine_side(bundle, alone, images, sure)
        stages, separate_stages = stages_of(runner), stages_of(alone)
        sides = (ours, unscored, judged, linked, separate, stages, separate_stages)
        last = WARM_UP_PAIRS + pairs
        for first in range(0, last, BLOCK_PAIRS):
            numbers = range(first, min(first + BLOCK_PAIRS, last))
            for side in sides:
                side.compare(numbers, run_plain)
            if ours.ratios:
                latest = f"engine {ours.own_ms[-1]:.1f} ms, plain {ours.plain_ms[-1]:.1f} ms"
                print(f"pair {numbers.stop:>4}/{last}: {latest}")
    if not all(all(side.counted) for side in sides):
        raise SystemExit("an answer came from an early exit or was sent for: nothing was compared")
    plain_ms_p50 = median(ours.plain_ms)
    stages_ratio_p50 = median(stages.ratios)

    def over_stages_us(side: Side) -> float:
        return round((median(side.ratios) - stages_ratio_p50) * plain_ms_p50 * 1000.0, 1)

    publish(
        "engine_overhead",
        Result(
            ratio_p50=round(median(ours.ratios), 4),
            ratio_p95=round(float(np.quantile(ours.ratios, 0.95)), 4),
            unscored_ratio_p50=round(median(unscored.ratios), 4),
            judged_ratio_p50=round(median(judged.ratios), 4),
            linked_ratio_p50=round(median(linked.ratios), 4),
            stages_ratio_p50=round(stages_ratio_p50, 4),
            separate_ratio_p50=round(median(separate.ratios), 4),
            separate_stages_ratio_p50=round(median(separate_stages.ratios), 4),
            engine_us=over_stages_us(ours),
            judged_engine_us=over_stages_us(judged),
            linked_engine_us=over_stages_us(linked),
            engine_ms_p50=round(median(ours.own_ms), 3),
            plain_ms_p50=round(plain_ms_p50, 3),
            decision_us_p50=round(median(judged.decisions_us), 2),
            decision_us_p95=round(float(np.quantile(judged.decisions_us, 0.95)), 2),
            linked_decision_us_p50=round(median(linked.decisions_us), 2),
            decisions_per_answer=len(ours.decisions_us) / pairs,
            judged_decisions_per_answer=len(judged.decisions_us) / pairs,
            pairs=pairs,
            threads=1,
            exits=exits,
            network=bundle.manifest.provenance.network,
        ),
    )


if __name__ == "__main__":
    main()
