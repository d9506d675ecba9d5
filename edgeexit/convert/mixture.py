"""One variant for each stage: the fastest mixture whose exits lose no more than is allowed.

Requires: stage files of several variants, what each takes where it will run, and labelled images.
Ensures: a mixture within the loss at every exit, and the fastest one unless the search was cut short.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Task
from edgeexit.convert.accuracy import answers_of, quality
from edgeexit.convert.lowered import open_stage
from edgeexit.convert.parity import Reference
from edgeexit.convert.plan import LabelledSet, network_input
from edgeexit.convert.slicing import Arrays, SlicedStage
from edgeexit.convert.variants import MeasuredVariant
from edgeexit.errors import ConfigError
from edgeexit.models.protocol import IMAGE

EXACT = "f32"
"""The variant that losses are held against; it loses nothing, so that there always is a mixture."""

# Each trial runs one stage over all images. Four stages of four variants have 340 beginnings, of which
# most are never tried because they cannot be faster; far deeper networks get the best of so many.
MOST_TRIALS = 400


# Stages of a ViT-Tiny take some ms: this many runs of a stage are done in a tenth of a second.
TIMED_RUNS = 15


@dataclass(frozen=True, slots=True)
class Mixture:
    """What the search chose.

    Units: total_ms, all stages together; losses, fractions of quality lost at each exit, negative where it
    gained. Shapes: tuples (K,). `complete` is False when the search ended at its cap.
    """

    variants: tuple[str, ...]
    total_ms: float
    losses: tuple[float, ...]
    trials: int
    complete: bool


Times = Mapping[str, Sequence[float | None]]
"""Milliseconds of each stage, by variant; None where a variant may not run."""

Loss = Callable[[tuple[str, ...]], float]
"""What the exit behind the last of these variants loses when just these run one after the other."""


def search_mixture(
    times_ms: Times,
    loss: Loss,
    *,
    most_loss: float,
    most_trials: int = MOST_TRIALS,
) -> Mixture:
    """The fastest mixture whose loss at every exit is at most `most_loss`.

    An exit depends on the stages before it and on none behind: a beginning that loses too much is never
    continued, nor one that could not become the fastest even if the rest were. Depth first, so that `loss`
    can keep what its last beginning gave.
    Shapes: times_ms (K,) for each variant, None where it may not run. Raises: ConfigError.
    """
    exact = times_ms.get(EXACT)
    if not most_loss >= 0.0 or most_trials < 1:
        raise ConfigError(
            "the search is refused", key="most_loss", why="loss is at least 0, trials at least 1"
        )
    if not exact or any(len(times) != len(exact) for times in times_ms.values()):
        raise ConfigError(
            "times of variants are refused", key="times_ms", why=f"{EXACT} is wanted, each with all stages"
        )
    ranked: list[list[tuple[float, str]]] = []
    for stage in range(len(exact)):
        timed = [(times[stage], name) for name, times in times_ms.items()]
        ranked.append(sorted((ms, name) for ms, name in timed if ms is not None))
        if EXACT not in {name for _, name in ranked[-1]}:
            raise ConfigError(
                "times of variants are refused", key="times_ms", why=f"{EXACT} has none at stage {stage}"
            )
    search = _Search(ranked, loss, most_loss, most_trials)
    search.descend((), (), 0.0)
    return search.result()


def choose_mixture(
    stages: Sequence[SlicedStage],
    variants: Sequence[MeasuredVariant],
    samples: Sequence[Sequence[Reference]],
    labelled: LabelledSet,
    *,
    most_loss: float,
    task: Task,
    error_scale: float = 1.0,
    times_ms: Times | None = None,
) -> Mixture:
    """The mixture of converted variants that a bundle should prefer.

    `times_ms` are from the board that will run it, as `edgeexit bench --on BUNDLE --json` finds them;
    without them the stages are timed here, one thread. Losses are measured on `labelled`.
    Its `variants` are what `describe` takes as `preferred`; the times go nowhere.
    Raises: ConfigError, LoweringError, MissingExtra, RunnerError.
    """
    models: dict[str, Sequence[Path]] = {variant.name: variant.models for variant in variants}
    timed = time_variants(stages, models, samples[0]) if times_ms is None else times_ms
    loss = MeasuredLoss(stages, models, labelled.images, labelled.targets, task=task, error_scale=error_scale)
    known: Times = {name: times for name, times in timed.items() if name in models}
    return search_mixture(known, loss, most_loss=most_loss)


def time_variants(
    stages: Sequence[SlicedStage],
    models: Mapping[str, Sequence[Path]],
    sample: Sequence[Reference],
    *,
    runs: int = TIMED_RUNS,
) -> dict[str, tuple[float, ...]]:
    """What each stage of each variant takes here, one thread: the median of some runs, taken in turn.

    Units: ms. Shapes: sample (K,), result (K,) by variant. Raises: LoweringError, MissingExtra, RunnerError.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    for stage, reference in zip(stages, sample, strict=True):
        opened = {name: open_stage(paths[stage.index], stage) for name, paths in models.items()}
        taken: dict[str, list[float]] = {name: [] for name in models}
        for run in range(runs + 1):
            for name, lowered in opened.items():
                began_s = perf_counter()
                lowered.run(reference.inputs)
                if run:  # the first one also packs weights and touches memory
                    taken[name].append((perf_counter() - began_s) * 1e3)
        for name, each in taken.items():
            times[name].append(median(each))
    return {name: tuple(each) for name, each in times.items()}


class _Search:
    """One search; the best mixture so far, which begins as the exact one."""

    def __init__(
        self, ranked: Sequence[Sequence[tuple[float, str]]], loss: Loss, most_loss: float, most_trials: int
    ) -> None:
        self._ranked = ranked
        self._loss = loss
        self._most_loss = most_loss
        self._most_trials = most_trials
        self._trials = 0
        self._complete = True
        count = len(ranked)
        # What the stages from k on take at least.
        self._least_ms = [sum(stage[0][0] for stage in ranked[k:]) for k in range(count + 1)]
        self._best = ((EXACT,) * count, (0.0,) * count)
        self._best_ms = sum(ms for stage in ranked for ms, name in stage if name == EXACT)

    def descend(self, begun: tuple[str, ...], losses: tuple[float, ...], spent_ms: float) -> None:
        """Try every continuation, the fastest variant first."""
        stage = len(begun)
        if stage == len(self._ranked):
            self._best, self._best_ms = (begun, losses), spent_ms
            return
        for ms, name in self._ranked[stage]:
            if spent_ms + ms + self._least_ms[stage + 1] >= self._best_ms:
                return  # neither this nor any slower one becomes the fastest
            lost = self._try((*begun, name))
            if lost is None:
                return
            if lost <= self._most_loss:
                self.descend((*begun, name), (*losses, lost), spent_ms + ms)

    def result(self) -> Mixture:
        """What was found."""
        return Mixture(*self._first(), trials=self._trials, complete=self._complete)

    def _first(self) -> tuple[tuple[str, ...], float, tuple[float, ...]]:
        return self._best[0], self._best_ms, self._best[1]

    def _try(self, begun: tuple[str, ...]) -> float | None:
        """What a beginning loses; None when no more may be tried."""
        if all(name == EXACT for name in begun):
            return 0.0
        if self._trials == self._most_trials:
            self._complete = False
            return None
        self._trials += 1
        return self._loss(begun)


class MeasuredLoss:
    """The loss of a beginning, measured by running it; states of the last beginning are kept.

    Shapes: images (n, C, H, W), targets (n,).
    """

    def __init__(
        self,
        stages: Sequence[SlicedStage],
        models: Mapping[str, Sequence[Path]],
        images: NDArray[np.generic],
        targets: NDArray[np.generic],
        *,
        task: Task,
        error_scale: float = 1.0,
    ) -> None:
        self._stages = stages
        self._models = models
        self._images = images
        self._targets = targets
        self._task: Task = task
        self._error_scale = error_scale
        self._begun: list[tuple[str, list[Arrays], float]] = []
        self._exact: list[float] = []

    def __call__(self, begun: tuple[str, ...]) -> float:
        """Raises: LoweringError, MissingExtra, RunnerError."""
        if not self._exact:
            for stage in range(len(self._stages)):
                self._exact.append(self._quality((EXACT,) * (stage + 1)))
        return self._exact[len(begun) - 1] - self._quality(begun)

    def _quality(self, begun: tuple[str, ...]) -> float:
        same = 0
        while same < min(len(begun), len(self._begun)) and self._begun[same][0] == begun[same]:
            same += 1
        del self._begun[same:]
        for name in begun[same:]:
            self._begun.append(self._run(name))
        return self._begun[-1][2]

    def _run(self, name: str) -> tuple[str, list[Arrays], float]:
        """The next stage, in this variant, on what the ones before gave."""
        index = len(self._begun)
        if self._begun:
            states = self._begun[-1][1]
        else:
            states = [{IMAGE: network_input(image)[None]} for image in self._images]  # C H W -> 1 C H W
        lowered = open_stage(self._models[name][index], self._stages[index])
        given: list[Arrays] = []
        outputs = np.empty((1, len(states), self._stages[index].output.shape[1]), np.float32)  # 1 n C
        for row, state in enumerate(states):
            tensors = lowered.run(state)
            outputs[0, row] = tensors.pop(lowered.output_name)[0]  # 1 C -> C
            given.append(tensors)
        answers = answers_of(outputs, self._task)  # 1 n C -> 1 n
        return name, given, float(quality(answers, self._targets, self._task, self._error_scale).mean())
