"""The whole conversion: slice, lower, prove parity, quantise, answer, calibrate, measure, write."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import BoundaryCodec
from edgeexit.bundle.write import require_room, write_bundle
from edgeexit.convert.calibrating import certify_consistency
from edgeexit.convert.codecs import measure_codecs
from edgeexit.convert.golden import golden_vectors
from edgeexit.convert.kept import KeptSteps
from edgeexit.convert.key import (
    arrays_digest,
    conversion_key,
    data_digest,
    finished,
    runtime_tools,
    stage_digest,
    steps_base,
    store_report,
    weights_digest,
)
from edgeexit.convert.lowering import LiteRTTorch, Lowering
from edgeexit.convert.mixture import choose_mixture
from edgeexit.convert.packers import (
    Learning,
    learns,
    make_plan_packers,
    packed_codecs,
    require_learning,
    require_suited,
    require_tflite,
)
from edgeexit.convert.packing import with_packers
from edgeexit.convert.parity import Reference, references
from edgeexit.convert.plan import ConversionPlan, LabelledSet, check_set, evenly, network_input
from edgeexit.convert.progress import Progress, Step, Steps, silent
from edgeexit.convert.quantise import quantiser_tools
from edgeexit.convert.report import REPORT_SCHEMA, ConversionReport, StageRow, VariantRow
from edgeexit.convert.slicing import SlicedStage, slice_network
from edgeexit.convert.variants import MeasuredVariant, VariantMaker
from edgeexit.convert.writing import Origin, describe, preprocessing
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.transport.codecs import is_packed


def convert(
    network: MultiExitNetwork,
    plan: ConversionPlan,
    *,
    calibration: LabelledSet,
    test: LabelledSet | None,
    out: Path,
    progress: Progress = silent,
    lowering: Lowering | None = None,
    learning: Learning | None = None,
) -> ConversionReport:
    """Turn a network into a bundle at `out`, with its report beside it.

    `calibration` was held out of training; `test`, where given, serves the figures of the report and
    nothing else; `learning` is what bottlenecks learn from, where the plan's codecs name some.
    Nothing is written if a step fails. A conversion that was killed goes on from the steps
    that it had finished. The same conversion, its bundle still whole at `out`, is not done again; another
    bundle at `out` is replaced.
    Raises: ConvertError and its leaves, DataError, ConfigError, BundleError, MissingExtra, RunnerError.
    """
    check_set(calibration, what="calibration", plan=plan, least=plan.golden_samples)
    if test is not None:
        check_set(test, what="test", plan=plan)
    back_end: Lowering = LiteRTTorch() if lowering is None else lowering
    tools = (*runtime_tools(), *back_end.tools, *quantiser_tools(plan.variants))
    packed = packed_codecs(plan)
    learnt = require_learning(learning).key if learns(packed) else ""
    key = conversion_key(network, plan, tools, calibration, test, learnt)
    stored = finished(out, key)
    if stored is not None:
        progress(Step("convert", 1, 1, "already converted"))
        return stored
    require_room(out)
    steps = Steps(progress, time.monotonic)
    with KeptSteps(out, steps_base(network, tools)) as kept:
        if kept.kept:
            progress(Step("resume", 1, 1, f"{kept.kept} steps were finished before; the same ones are used"))
        stages, samples = _slice(network, plan, calibration, steps)
        require_suited(stages, packed)
        lowered = _lower(back_end, stages, samples[0], kept, steps)
        require_tflite(lowered[0], packed)
        maker = VariantMaker(plan, stages, lowered, samples, calibration, test, steps, kept, back_end)
        variants: list[MeasuredVariant] = []
        for name in plan.variants:
            variants.append(maker.make(name, variants[0] if variants else None))
        variants = _consistent(plan, variants)
        codecs = _codecs(plan, stages, lowered, calibration, kept, steps)
        mixture = _mixture(plan, stages, variants, samples, calibration, kept, steps)
        golden = golden_vectors(stages, samples, plan.golden_samples)
        origin = Origin(tools, weights_digest(network), data_digest(calibration))
        manifest, files = describe(plan, stages, variants, codecs, golden, origin, mixture)
        if packed:
            # As a draft of the bundle that a stopped conversion leaves behind, which the next one removes.
            with TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as folder:
                draft = write_bundle(Path(folder) / "draft", manifest, files)
                made = make_plan_packers(network, stages, plan, draft, calibration, learning, kept, steps)
            manifest = with_packers(manifest, made)
            files |= {name: data for each in made.values() for name, data in each.files.items()}
        with steps.step("write", 1):
            bundle = write_bundle(out, manifest, files, replace=True)
        report = ConversionReport(
            schema=REPORT_SCHEMA,
            key=key,
            name=plan.name,
            version=plan.version,
            task=plan.task,
            digest=bundle.digest,
            tools=tools,
            calibration_samples=len(calibration.images),
            test_samples=0 if test is None else len(test.images),
            stages=tuple(
                _row(stage, variants, boundary.codecs)
                for stage, boundary in zip(stages, manifest.boundaries, strict=True)
            ),
            times=steps.times,
            mixture=mixture,
            created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
    store_report(out, report)
    return report


def _slice(
    network: MultiExitNetwork, plan: ConversionPlan, calibration: LabelledSet, steps: Steps
) -> tuple[tuple[SlicedStage, ...], tuple[tuple[Reference, ...], ...]]:
    """The stages, and the float network's run on the inputs that parity and golden vectors use."""
    images = calibration.images
    with steps.step("slice", 1):
        classes = len(plan.labels) if plan.task == "classification" else 2
        stages = slice_network(network, network_input(images[:1]), task=plan.task, classes=classes)
        preprocessing(stages)  # refuses an input that no camera gives, before anything is lowered
        chosen = evenly(len(images), max(plan.parity_samples, plan.golden_samples))
        return stages, references(stages, network_input(images[chosen])[:, None])  # n C H W -> n 1 C H W


def _lower(
    back_end: Lowering,
    stages: Sequence[SlicedStage],
    sample: Sequence[Reference],
    kept: KeptSteps,
    steps: Steps,
) -> tuple[Path, ...]:
    """One f32 file a stage."""
    lowered: list[Path] = []
    with steps.step("lower", len(stages)) as tell:
        for stage, reference in zip(stages, sample, strict=True):
            parts = [stage_digest(stage.module), arrays_digest(reference.inputs)]
            make = partial(back_end.lower, stage, reference.inputs)
            lowered.append(kept.file(f"{stage.index}-f32", parts, make))
            tell(len(lowered))
    return tuple(lowered)


def _consistent(plan: ConversionPlan, variants: Sequence[MeasuredVariant]) -> list[MeasuredVariant]:
    """The same variants, certified for inconsistency too, which needs the answers of all of them."""
    return [
        replace(
            variant,
            risk_controls=(
                *variant.risk_controls,
                *certify_consistency(
                    variant.fitted,
                    variant.answers,
                    [other.answers for other in variants if other is not variant],
                    variant=variant.name,
                    epsilons=plan.inconsistency_epsilons,
                    delta=plan.risk_delta,
                    tolerance=plan.tolerance,
                    dataset=plan.dataset,
                ),
            ),
        )
        for variant in variants
    ]


def _codecs(
    plan: ConversionPlan,
    stages: Sequence[SlicedStage],
    lowered: Sequence[Path],
    calibration: LabelledSet,
    kept: KeptSteps,
    steps: Steps,
) -> tuple[tuple[BoundaryCodec, ...], ...]:
    subset = evenly(len(calibration.images), plan.codec_samples)
    images, targets = calibration.images[subset], calibration.targets[subset]
    wanted = tuple(codec for codec in plan.codecs if not is_packed(codec))
    with steps.step("codecs", len(subset)) as tell:

        def measure() -> bytes:
            return msgspec.json.encode(
                measure_codecs(
                    stages,
                    lowered,
                    images,
                    targets,
                    task=plan.task,
                    error_scale=plan.quality_scale,
                    wanted=wanted,
                    workers=plan.workers,
                    tell=tell,
                )
            )

        parts = [
            *(path.name for path in lowered),
            arrays_digest({"images": images, "targets": targets}),
            f"{plan.task} {plan.quality_scale} {wanted}",
        ]
        found = kept.file("codecs", parts, measure).read_bytes()
        return msgspec.json.decode(found, type=tuple[tuple[BoundaryCodec, ...], ...])


@dataclass(frozen=True, slots=True)
class _Some:
    """Some images of a set, with their answers. Shapes: images (n, C, H, W), targets (n,)."""

    images: NDArray[np.generic]
    targets: NDArray[np.generic]


def _mixture(
    plan: ConversionPlan,
    stages: Sequence[SlicedStage],
    variants: Sequence[MeasuredVariant],
    samples: Sequence[Sequence[Reference]],
    calibration: LabelledSet,
    kept: KeptSteps,
    steps: Steps,
) -> tuple[str, ...]:
    """The variant to prefer at each stage, as the plan asks for it; empty where it does not."""
    most_loss = plan.mixture_loss
    if most_loss is None:
        return ()
    subset = evenly(len(calibration.images), plan.codec_samples)
    some = _Some(calibration.images[subset], calibration.targets[subset])

    def search() -> bytes:
        found = choose_mixture(
            stages,
            variants,
            samples,
            some,
            most_loss=most_loss,
            task=plan.task,
            error_scale=plan.quality_scale,
            times_ms=dict(plan.mixture_times) or None,
        )
        return msgspec.json.encode(found.variants)

    parts = [
        *(path.name for variant in variants for path in variant.models),
        arrays_digest({"images": some.images, "targets": some.targets}),
        f"{plan.task} {plan.quality_scale} {most_loss} {plan.mixture_times}",
    ]
    with steps.step("mixture", 1):
        return msgspec.json.decode(kept.file("mixture", parts, search).read_bytes(), type=tuple[str, ...])


def _row(
    stage: SlicedStage, variants: Sequence[MeasuredVariant], codecs: tuple[BoundaryCodec, ...]
) -> StageRow:
    k = stage.index
    return StageRow(
        stage=k,
        parameters=stage.parameters,
        macs=stage.macs,
        boundary_bytes=sum(spec.size_bytes for spec in stage.inputs),
        codecs=codecs,
        variants=tuple(
            VariantRow(
                name=variant.name,
                size_bytes=variant.models[k].stat().st_size,
                exit_max_abs=variant.parity[k].exit_max_abs,
                tensor_max_abs=variant.parity[k].tensor_max_abs,
                exit_max_rel=variant.parity[k].exit_max_rel,
                same_answers=variant.parity[k].same_answers,
                accuracy_lost=variant.accuracy_lost[k],
                agreement=variant.agreement[k],
                accuracy_calibration=variant.fitted[k].calibration.accuracy,
                accuracy_test=None if variant.accuracy_test is None else variant.accuracy_test[k],
                temperature=variant.fitted[k].calibration.temperature,
                ece_before=variant.fitted[k].ece_before,
                ece_after=variant.fitted[k].ece_after,
            )
            for variant in variants
        ),
    )
