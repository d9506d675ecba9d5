"""Steps 3 to 6 for one variant: quantise, prove, answer, agree, calibrate."""

from __future__ import annotations

from collections.abc import Sequence
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
from edgeexit.convert.onnx_export import Onnx
from edgeexit.convert.parity import Reference, StageParity, check_parity
from edgeexit.convert.plan import ConversionPlan, LabelledSet, Tolerances, VariantName
from edgeexit.convert.progress import Steps
from edgeexit.convert.quantise import ONNX_VARIANTS, quantise
from edgeexit.convert.slicing import SlicedStage


@dataclass(frozen=True, slots=True)
class MeasuredVariant:
    """All stages in one variant, with what was measured of them.

    Shapes: tuples (K,); answers (K, N), labels or values on the calibration set.
    Units: agreement, fraction of answers like the float variant's; accuracies, fractions.
    """

    name: VariantName
    models: tuple[Path, ...]
    parity: tuple[StageParity, ...]
    agreement: tuple[float, ...]
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

    def make(self, name: VariantName, reference: MeasuredVariant | None) -> MeasuredVariant:
        """One variant; `reference` is the float one, None while that is being made.

        Raises: LoweringError, ParityError, ConfigError, MissingExtra, RunnerError.
        """
        plan, task, scale = self.plan, self.plan.task, self.plan.quality_scale
        with self.steps.step(f"quantise {name}" if reference else "parity f32", len(self.stages)) as tell:
            models = self._models(name)
            parity = check_parity(
                self.stages, models, self.samples, tolerance=_bound(name, plan.tolerances), tell=tell
            )
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
