"""What a conversion is about to do, known before it begins: stages, boundaries, and the work of each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import CodecName, Task, TensorSpec
from edgeexit.convert.codecs import codecs_of
from edgeexit.convert.packers import (
    BOTTLENECK,
    packed_codecs,
    packed_shapes,
    require_suited,
    untrained_packers,
)
from edgeexit.convert.plan import ConversionPlan, network_input
from edgeexit.convert.report import laid_out, shown_bytes, shown_count
from edgeexit.convert.slicing import SlicedStage, slice_network
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.training.bottleneck import BottleneckTraining
from edgeexit.transport.codecs import payload_bytes, size_varies, uncompressed

# Weights take this many bytes each; what else is in a file is small beside them.
_WEIGHT_BYTES = {"f32": 4, "f16": 2}
_QUANTISED_BYTES = 1


@dataclass(frozen=True, slots=True)
class PlannedCodec:
    """One way of sending a boundary. Units: payload_bytes, None where it depends on the image."""

    codec: str
    payload_bytes: int | None


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage, and the boundary that it takes. Units: macs, multiply-adds."""

    stage: int
    parameters: int
    macs: int
    tensors: tuple[str, ...]
    boundary_bytes: int
    codecs: tuple[PlannedCodec, ...]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step, and the multiply-adds of all the runs that it takes; 0 where it runs nothing."""

    step: str
    what: str
    macs: int


@dataclass(frozen=True, slots=True)
class Preview:
    """A conversion that has not begun.

    `untrained` are exits whose weights mean nothing. Shapes: image (1, C, H, W). Units: bundle_bytes, about.
    """

    name: str
    version: str
    network: str
    task: Task
    labels: int
    image: tuple[int, ...]
    back_end: str
    variants: tuple[str, ...]
    stages: tuple[PlannedStage, ...]
    steps: tuple[PlannedStep, ...]
    bundle_bytes: int
    untrained: tuple[int, ...] = ()
    finished_steps: int = 0


def preview(
    network: MultiExitNetwork,
    plan: ConversionPlan,
    image: NDArray[np.generic],
    *,
    back_end: str,
    calibration_count: int,
    test_count: int,
    untrained: tuple[int, ...] = (),
    finished_steps: int = 0,
) -> Preview:
    """Run the network once, and reckon. Shapes: image (1, C, H, W). Raises: UnsupportedModel."""
    classes = len(plan.labels) if plan.task == "classification" else 2
    stages = slice_network(network, network_input(image), task=plan.task, classes=classes)
    require_suited(stages, packed_codecs(plan))
    parameters = sum(stage.parameters for stage in stages)
    return Preview(
        name=plan.name,
        version=plan.version,
        network=plan.network,
        task=plan.task,
        labels=len(plan.labels),
        image=image.shape,
        back_end=back_end,
        variants=plan.variants,
        stages=tuple(_stage(stage, plan) for stage in stages),
        steps=tuple(_steps(stages, plan, back_end, calibration_count, test_count)),
        bundle_bytes=sum(parameters * _WEIGHT_BYTES.get(name, _QUANTISED_BYTES) for name in plan.variants),
        untrained=untrained,
        finished_steps=finished_steps,
    )


def _stage(stage: SlicedStage, plan: ConversionPlan) -> PlannedStage:
    packers = untrained_packers(stage.index, stage.inputs, packed_codecs(plan))
    return PlannedStage(
        stage=stage.index,
        parameters=stage.parameters,
        macs=stage.macs,
        tensors=tuple(str(spec) for spec in stage.inputs),
        boundary_bytes=sum(spec.size_bytes for spec in stage.inputs),
        codecs=(
            *(_weighed(codec, stage.inputs) for codec in codecs_of(stage.index, plan.codecs)),
            *(
                _weighed(codec, packed_shapes(packer, stage.inputs))
                for packer in packers
                for codec in packer.codecs
            ),
        ),
    )


def _weighed(codec: CodecName, specs: Sequence[TensorSpec]) -> PlannedCodec:
    return PlannedCodec(codec, None if size_varies(codec) else payload_bytes(specs, codec))


def _steps(
    stages: tuple[SlicedStage, ...],
    plan: ConversionPlan,
    back_end: str,
    calibration_count: int,
    test_count: int,
) -> list[PlannedStep]:
    whole = sum(stage.macs for stage in stages)
    proven = min(plan.parity_samples, calibration_count)
    steps = [
        PlannedStep("slice", "one image through all stages, then those of the proof", whole * (1 + proven)),
        PlannedStep("lower", f"{len(stages)} stages, by {back_end}", 0),
    ]
    for name in plan.variants:
        # Each stage alone on the network's own tensors, and in the chain of lowered stages.
        what = f"{proven} images, each stage alone and in the chain"
        if name == "f32":
            steps.append(PlannedStep("parity f32", what, 2 * proven * whole))
        else:
            steps.append(PlannedStep(f"quantise {name}", f"{len(stages)} stages; {what}", 2 * proven * whole))
        for step, count in (("calibration", calibration_count), ("test", test_count)):
            if count:
                steps.append(PlannedStep(f"{step} {name}", f"{count:,} images", count * whole))
    sent = min(plan.codec_samples, calibration_count)
    behind = [sum(stage.macs for stage in stages[b:]) for b in range(len(stages))]
    offered = [codecs_of(b, plan.codecs) for b in range(len(stages))]
    # What is compressed without loss gives the answers of what it compresses.
    lossy = sum(
        macs * len({uncompressed(codec) for codec in codecs} - {"raw"})
        for macs, codecs in zip(behind, offered, strict=True)
    )
    count = sum(map(len, offered))
    steps.append(
        PlannedStep("codecs", f"{sent:,} images, {count} codecs of boundaries", sent * (whole + lossy))
    )
    if plan.mixture_loss is not None:
        places = len(stages) * len(plan.variants)
        what = f"{sent:,} images through up to {places} files, again where beginnings differ"
        steps.append(PlannedStep("mixture", what, sent * whole * len(plan.variants)))
    steps += _packer_steps(stages, plan, sent, behind)
    steps.append(PlannedStep("write", "golden vectors, manifest, digests", 0))
    return steps


def _packer_steps(
    stages: tuple[SlicedStage, ...], plan: ConversionPlan, sent: int, behind: list[int]
) -> list[PlannedStep]:
    """What packers take, those of each boundary; their own multiply-adds are few beside the stages'."""
    whole, steps = behind[0], []
    for stage in stages[1:]:
        packers = untrained_packers(stage.index, stage.inputs, packed_codecs(plan))
        names = [packer.name for packer in packers]
        if any(name.startswith(BOTTLENECK) for name in names):
            limit = "" if plan.bottleneck_seconds is None else f", {plan.bottleneck_seconds:g} s at most"
            # Once through all stages for what is taught, and again and again through those behind to learn,
            # with the way back, which costs twice the way there.
            kept = BottleneckTraining(samples=plan.bottleneck_samples).kept_samples
            taught = min(plan.bottleneck_samples, kept) * whole
            macs = taught + 3 * plan.bottleneck_samples * behind[stage.index]
            what = f"trained on {plan.bottleneck_samples:,} images{limit}"
            steps.append(PlannedStep(f"bottleneck {stage.index}", what, macs))
        if packers:
            lossy = len({uncompressed(codec) for packer in packers for codec in packer.codecs})
            macs = sent * (whole + lossy * behind[stage.index])
            steps.append(PlannedStep(f"packers {stage.index}", f"{sent:,} images, {', '.join(names)}", macs))
    return steps


def encode_preview(shown: Preview) -> bytes:
    """The preview as JSON."""
    return msgspec.json.format(msgspec.json.encode(shown), indent=2) + b"\n"


def render_preview(shown: Preview) -> str:
    """The preview as plain text."""
    task = f"{shown.task}, {shown.labels} labels" if shown.labels else shown.task
    _, *image = shown.image
    total = max(1, sum(step.macs for step in shown.steps))
    stages = [
        (
            str(stage.stage),
            f"{stage.parameters:,}",
            shown_count(stage.macs),
            ", ".join(stage.tensors),
            ", ".join(_codec(codec) for codec in stage.codecs),
        )
        for stage in shown.stages
    ]
    steps = [
        (
            step.step,
            shown_count(step.macs) if step.macs else "",
            f"{step.macs / total:.0%}" if step.macs else "",
            step.what,
        )
        for step in shown.steps
    ]
    lines = [
        f"plan for {shown.name} {shown.version}: {task}; images {' × '.join(map(str, image))}",
        f"network    {shown.network}",
        f"variants   {', '.join(shown.variants)} of each stage, lowered by {shown.back_end};"
        f" about {shown_bytes(shown.bundle_bytes)}",
        "",
        *laid_out(("stage", "parameters", "MACs", "boundary before it", "may travel as"), stages, "rrrll"),
        "",
        *laid_out(("step", "MACs", "share", "what"), steps, "lrrl"),
    ]
    if shown.untrained:
        exits = ", ".join(map(str, shown.untrained))
        lines.append(f"\nexits that were never trained: {exits}")
    if shown.finished_steps:
        lines.append(f"\n{shown.finished_steps} steps were finished before; the same ones are not done again")
    return "\n".join(lines)


def _codec(codec: PlannedCodec) -> str:
    size = "?" if codec.payload_bytes is None else shown_bytes(codec.payload_bytes)
    return f"{codec.codec} {size}"
