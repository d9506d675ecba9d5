"""Whether one variant of a stage answers here as the float network did, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Precision, Variant
from edgeexit.runner.protocol import Clock, LoadedStage, StageOutput, Tensors
from edgeexit.runner.report import VariantReport

Floats = NDArray[np.float32]

# What the exit's output may differ by, as a fraction of its largest value (at least 1), per precision.
# f32: backends were measured within 2e-6; other processors sum in other orders, a thousandth is ample.
# f16: weights carry eleven bits, and some ARM kernels compute in them too.
# int8: honest files differ by a few hundredths, broken kernels by the size of the values themselves.
_OUTPUT_FRACTION: dict[Precision, float] = {"f32": 1e-3, "f16": 2e-2, "int8": 0.15}

# A variant may differ by this many times what it differed by when it was converted: golden vectors are
# few, so their worst is not the worst there is, and kernels of another processor round differently.
_PARITY_SLACK = 3.0

# Tensors of the next boundary: relative difference (Euclidean) to the most exact variant that passed.
_BOUNDARY_DIFFERENCE: dict[Precision, float] = {"f32": 1e-3, "f16": 2e-2, "int8": 0.3}

# At least this fraction of golden vectors must keep its label. Sound int8 keeps 98 % or more at the worst
# exit; tflite-runtime 2.14 kept 11 % with per-channel int8. Six of eight leaves room for near ties.
LEAST_AGREEMENT = 0.75


@dataclass(slots=True)
class Trial:
    """One loaded variant, what it answered to the golden vectors, and its times so far."""

    loaded: LoadedStage
    given: list[StageOutput]
    times_ms: list[float] = field(default_factory=list)

    @property
    def best_ms(self) -> float:
        """The least disturbed run: what tells variants apart on a busy machine."""
        return min(self.times_ms)

    @property
    def median_ms(self) -> float:
        """What a run usually takes."""
        return float(np.median(self.times_ms))

    def run(self, tensors: Tensors, clock: Clock) -> StageOutput:
        """Run once, timed. Raises: RunnerError."""
        begun_ms = clock()
        given = self.loaded.run(tensors)
        self.times_ms.append(clock() - begun_ms)
        return given


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far a variant is from the float network; `why` is None when it passed."""

    why: str | None
    max_abs_diff: float | None
    tolerance: float
    agreement: float | None


def try_out(loaded: LoadedStage, inputs: Sequence[Tensors], clock: Clock) -> Trial:
    """Run every golden vector once, after a first run that is not timed. Raises: RunnerError."""
    loaded.run(inputs[0])  # the first run also packs weights and touches memory
    trial = Trial(loaded, [])
    trial.given = [trial.run(tensors, clock) for tensors in inputs]
    return trial


def judge_trial(
    trial: Trial, expected: Floats, reference: Sequence[StageOutput] | None, *, labelled: bool
) -> Verdict:
    """Hold a trial against the float network's outputs, and its boundary against the reference's.

    Shapes: expected (n, C).
    """
    variant = trial.loaded.variant
    got = np.stack([given.output for given in trial.given])  # (n, C)
    tolerance = tolerance_of(variant, expected)
    if not np.isfinite(got).all():
        return Verdict("its answers are not finite", None, tolerance, None)
    max_abs_diff = float(np.abs(got - expected).max())
    agreement = agreement_of(got, expected) if labelled else None
    why = None
    if max_abs_diff > tolerance:
        why = f"outputs differ by {max_abs_diff:.3g}, {tolerance:.3g} is allowed"
    elif agreement is not None and agreement < LEAST_AGREEMENT:
        why = f"only {agreement:.0%} of the golden vectors keep their label"
    elif reference is not None:
        difference = _boundary_difference(trial.given, reference)
        allowed = _BOUNDARY_DIFFERENCE[variant.precision]
        if not difference <= allowed:  # also where it is not a number
            why = f"boundary tensors differ by {difference:.3g} of their size, {allowed:g} is allowed"
    return Verdict(why, max_abs_diff, tolerance, agreement)


def tolerance_of(variant: Variant, expected: Floats) -> float:
    """What this variant's outputs may differ by: never more than half of the largest output."""
    scale = max(1.0, float(np.abs(expected).max()))
    wanted = max(_OUTPUT_FRACTION[variant.precision] * scale, _PARITY_SLACK * variant.parity_max_abs)
    return min(wanted, scale / 2.0)


def agreement_of(got: Floats, expected: Floats) -> float:
    """Fraction of vectors with the same label. Shapes: (n, C) both."""
    return float((got.argmax(axis=1) == expected.argmax(axis=1)).mean())


def trial_report(trial: Trial, verdict: Verdict) -> VariantReport:
    """The entry of a variant that was run, whether it passed or not."""
    return VariantReport(
        stage=trial.loaded.stage,
        variant=trial.loaded.variant.name,
        passed=verdict.why is None,
        why=verdict.why,
        max_abs_diff=verdict.max_abs_diff,
        tolerance=verdict.tolerance,
        agreement=verdict.agreement,
        best_ms=trial.best_ms,
        median_ms=trial.median_ms,
    )


def failed_report(stage: int, variant: Variant, why: str) -> VariantReport:
    """The entry of a variant that could not be loaded or run."""
    return VariantReport(
        stage=stage,
        variant=variant.name,
        passed=False,
        why=why,
        max_abs_diff=None,
        tolerance=None,
        agreement=None,
        best_ms=None,
        median_ms=None,
    )


def _boundary_difference(given: Sequence[StageOutput], reference: Sequence[StageOutput]) -> float:
    """The largest relative difference of any tensor; 0 where nothing is passed on."""
    worst = 0.0
    for name in given[0].boundary:
        ours = np.stack([each.boundary[name] for each in given]).astype(np.float64)
        theirs = np.stack([each.boundary[name] for each in reference]).astype(np.float64)
        size = float(np.linalg.norm(theirs))
        difference = float(np.linalg.norm(ours - theirs))
        if not np.isfinite(difference):
            return difference
        worst = max(worst, difference / size if size > 0.0 else difference)
    return worst
