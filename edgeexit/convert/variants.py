"""Steps 3 to 6 for one variant: quantise, prove, answer, agree, calibrate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import RiskControl
from edgeexit.convert.accuracy import agreement, answer_set, answers_of, quality
from edgeexit.convert.calibrating import FittedExit, certify, fit_exits
from edgeexit.convert.kept import KeptSteps
from edgeexit.convert.key import arrays_digest, data_digest, stage_digest
from edgeexit.convert.lowering import Lowering
from edgeexit.convert.onnx_export import Onnx
from edgeexit.convert.operators import first_diverging
from edgeexit.convert.parity import Reference, StageParity, check_parity
from edgeexit.convert.plan import ConversionPlan, LabelledSet, Tolerances, VariantName
from edgeexit.convert.progress import Steps
from edgeexit.convert.quantise import ONNX_VARIANTS, quantise
from edgeexit.convert.slicing import SlicedStage
from edgeexit.errors import ParityError

# Which operator strays shows on any input where the stage does; some are looked at, to be surer of it.
HUNT_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class MeasuredVariant:
    """All stages in one variant, with what was measured of them.

    Shapes: tuples (K,); answers (K, N), labels or values on the calibration set.
    Units: agreement, fraction of answers like the float variant's; accuracies, fractions; accuracy_lost,
    the float variant's less this one's, on the calibration set.
    """

    name: VariantName
    models: tuple[Path, ...]
    parity: tuple[StageParity, ...]
    agreement: tuple[float, ...]
    accuracy_lost: tuple[float, ...]
    answers: NDArray[np.float64]
    fitted: tuple[FittedExit, ...]
    accuracy_test: tuple[float, ...] | None
    risk_controls: tuple[RiskControl, ...]


@dataclass(frozen=True, slots=True)
class VariantMaker:
    """Makes one variant after the other from the same lowered stages and the same data."""

    plan: ConversionPlan
    stages: tuple[SlicedStage, ...]
    lowered: tuple[Path, ...]
    samples: tuple[tuple[Reference, ...], ...]
    calibration: LabelledSet
    test: LabelledSet | None
    steps: Steps
    kept: KeptSteps
    lowering: Lowering | None = None

    def make(self, name: VariantName, reference: MeasuredVariant | None) -> MeasuredVariant:
        """One variant; `reference` is the float one, None while that is being made.

        Raises: LoweringError, ParityError, ConfigError, MissingExtra, RunnerError.
        """
        plan, task, scale = self.plan, self.plan.task, self.plan.quality_scale
        with self.steps.step(f"quantise {name}" if reference else "parity f32", len(self.stages)) as tell:
            models = self._models(name)
            parity = self._parity(name, models, tell)
        outputs = self._answer(name, "calibration", models, self.calibration)
        answers = answers_of(outputs, task)
        agreed = agreement(
            answers,
            answers if reference is None else reference.answers,
            variant=name,
            task=task,
            error_scale=scale,
            least=plan.tolerances.agreement,
        )
        qualities = quality(answers, self.calibration.targets, task, scale)
        lost = self._lost(name, qualities, reference)
        fitted = fit_exits(outputs, self.calibration.targets, qualities, variant=name, task=task)
        accuracy_test = None
        if self.test is not None:
            tested = answers_of(self._answer(name, "test", models, self.test), task)
            means = quality(tested, self.test.targets, task, scale).mean(axis=1)
            accuracy_test = tuple(float(mean) for mean in means)
        return MeasuredVariant(
            name=name,
            models=models,
            parity=parity,
            agreement=agreed,
            accuracy_lost=lost,
            answers=answers,
            fitted=fitted,
            accuracy_test=accuracy_test,
            risk_controls=certify(
                fitted,
                qualities,
                variant=name,
                task=task,
                epsilons=plan.risk_epsilons,
                delta=plan.risk_delta,
                dataset=plan.dataset,
            ),
        )

    def _parity(
        self, name: VariantName, models: Sequence[Path], tell: Callable[[int], None]
    ) -> tuple[StageParity, ...]:
        """What the gate measured; a refusal names the first operator that strays, where it can be found."""
        bound = _bound(name, self.plan.tolerances)
        try:
            return check_parity(self.stages, models, self.samples, tolerance=bound, tell=tell)
        except ParityError as error:
            back_end: Lowering | None = Onnx() if name in ONNX_VARIANTS else self.lowering
            if bound is None or back_end is None:
                raise
            lower = back_end.lower

            def make(stage: SlicedStage, inputs: Mapping[str, NDArray[np.generic]]) -> bytes:
                return quantise(lower(stage, inputs), name, stage=stage.index, inputs=[inputs])

            operator = first_diverging(
                self.stages[error.stage],
                [sample[error.stage].inputs for sample in self.samples[:HUNT_SAMPLES]],
                make,
                tolerance=bound,
            )
            raise ParityError(
                stage=error.stage,
                tensor=error.tensor,
                max_abs_diff=error.max_abs_diff,
                tolerance=error.tolerance,
                operator=operator,
            ) from error

    def _lost(
        self, name: VariantName, qualities: NDArray[np.float64], reference: MeasuredVariant | None
    ) -> tuple[float, ...]:
        """What each exit loses to the float variant's. Raises: ParityError when that is too much."""
        means = [float(mean) for mean in qualities.mean(axis=1)]  # K N -> K
        if reference is None:
            return (0.0,) * len(means)
        lost = tuple(
            fitted.calibration.accuracy - mean for fitted, mean in zip(reference.fitted, means, strict=True)
        )
        most = self.plan.tolerances.accuracy_loss
        for k, each in enumerate(lost):
            if most is not None and each > most:
                raise ParityError(
                    stage=k,
                    tensor=f"the accuracy of variant {name}, a fraction,",
                    max_abs_diff=each,
                    tolerance=most,
                )
        return lost

    def _models(self, name: VariantName) -> tuple[Path, ...]:
        if name == "f32":
            return self.lowered
        if name == "onnx":
            return self._exported()
        floats = self._exported() if name in ONNX_VARIANTS else self.lowered
        models = []
        for stage, path in zip(self.stages, floats, strict=True):
            inputs = [sample[stage.index].inputs for sample in self.samples]
            make = partial(quantise, path.read_bytes(), name, stage=stage.index, inputs=inputs)
            seen = [arrays_digest(each) for each in inputs]
            models.append(self.kept.file(f"{stage.index}-{name}", [path.name, *seen], make))
        return tuple(models)

    def _exported(self) -> tuple[Path, ...]:
        """The stages as ONNX, which most back ends do not lower to."""
        models = []
        for stage in self.stages:
            inputs = self.samples[0][stage.index].inputs
            parts = [stage_digest(stage.module), arrays_digest(inputs)]
            models.append(self.kept.file(f"{stage.index}-onnx", parts, partial(Onnx().lower, stage, inputs)))
        return tuple(models)

    def _answer(
        self, name: VariantName, what: str, models: Sequence[Path], labelled: LabelledSet
    ) -> NDArray[np.float32]:
        with self.steps.step(f"{what} {name}", len(labelled.images)) as tell:
            answer = partial(
                answer_set, self.stages, models, labelled.images, workers=self.plan.workers, tell=tell
            )
            parts = [*(path.name for path in models), data_digest(labelled)]
            return self.kept.array(f"answers-{name}", parts, answer)


def _bound(name: VariantName, tolerances: Tolerances) -> float | None:
    """How far a stage of this variant may stray; int8 is bounded by its answers instead."""
    bounds = {"f32": tolerances.parity, "onnx": tolerances.parity, "f16": tolerances.half_parity}
    return bounds.get(name)
