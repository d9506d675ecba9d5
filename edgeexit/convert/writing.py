"""Step 9: what the bundle says.

Requires: every other step done.
Ensures: what the bundle says, and its files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET

from edgeexit.bundle.manifest import (
    SCHEMA,
    Blob,
    Boundary,
    BoundaryCodec,
    Exit,
    Format,
    Manifest,
    Preprocessing,
    Provenance,
    Stage,
    Variant,
)
from edgeexit.bundle.write import golden_blob, model_blob
from edgeexit.convert.lowered import format_of
from edgeexit.convert.plan import ConversionPlan
from edgeexit.convert.quantise import precision_of, runtimes
from edgeexit.convert.slicing import SlicedStage
from edgeexit.convert.variants import MeasuredVariant
from edgeexit.errors import UnsupportedModel


@dataclass(frozen=True, slots=True)
class Origin:
    """What a bundle was made with and from: names with versions, and digests of weights and data."""

    tools: tuple[str, ...]
    weights_sha256: str
    data_sha256: str


def preprocessing(stages: Sequence[SlicedStage]) -> Preprocessing:
    """How an image becomes the input of this network.

    Raises: UnsupportedModel when the input is neither a grey nor a colour image.
    """
    _, channels, height, width = stages[0].inputs[0].shape
    if channels not in (1, 3):
        raise UnsupportedModel(f"the input has {channels} channels", expected="1 (grey) or 3 (colour)")
    return Preprocessing(height=height, width=width, color="gray" if channels == 1 else "rgb", layout="NCHW")


def describe(
    plan: ConversionPlan,
    stages: Sequence[SlicedStage],
    variants: Sequence[MeasuredVariant],
    codecs: Sequence[Sequence[BoundaryCodec]],
    golden: bytes,
    origin: Origin,
    preferred: Sequence[str] = (),
) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest, and its files by name.

    `preferred` names a variant for each stage, as a search of mixtures found them; empty where none was made.
    No date and no measured time goes into it: the same conversion gives the same digest.

    Shapes: stages and codecs (K,).
    """
    files = {golden_blob(golden).file: golden}
    blobs: dict[Path, Blob] = {}
    formats: dict[Path, Format] = {}
    for path in (path for variant in variants for path in variant.models):
        model = path.read_bytes()
        blobs[path] = model_blob(model)
        formats[path] = format_of(model)
        files[blobs[path].file] = model
    manifest = Manifest(
        schema=SCHEMA,
        name=plan.name,
        version=plan.version,
        serial=plan.serial,
        task=plan.task,
        labels=plan.labels,
        preprocessing=preprocessing(stages),
        boundaries=tuple(
            Boundary(tensors=stage.inputs, codecs=tuple(measured))
            for stage, measured in zip(stages, codecs, strict=True)
        ),
        stages=tuple(
            _stage(stage, variants, blobs, formats, preferred[stage.index] if preferred else None)
            for stage in stages
        ),
        exits=tuple(_exit(stage, variants) for stage in stages),
        golden=golden_blob(golden),
        provenance=Provenance(
            network=plan.network,
            dataset=plan.dataset,
            licence=plan.licence,
            tools=origin.tools,
            checkpoint_sha256=plan.checkpoint_sha256,
            recipe_sha256=UNSET if plan.recipe_sha256 is None else plan.recipe_sha256,
            weights_sha256=origin.weights_sha256,
            data_sha256=origin.data_sha256,
        ),
        risk_controls=tuple(control for variant in variants for control in variant.risk_controls),
    )
    return manifest, files


def _stage(
    stage: SlicedStage,
    variants: Sequence[MeasuredVariant],
    blobs: Mapping[Path, Blob],
    formats: Mapping[Path, Format],
    preferred: str | None,
) -> Stage:
    return Stage(
        parameters=stage.parameters,
        macs=stage.macs,
        variants=tuple(
            Variant(
                name=variant.name,
                format=formats[variant.models[stage.index]],
                precision=precision_of(variant.name),
                blob=blobs[variant.models[stage.index]],
                runtimes=runtimes(variant.name, formats[variant.models[stage.index]]),
                parity_max_abs=variant.parity[stage.index].exit_max_abs,
            )
            for variant in variants
        ),
        preferred=UNSET if preferred is None else preferred,
    )


def _exit(stage: SlicedStage, variants: Sequence[MeasuredVariant]) -> Exit:
    fitted = [variant.fitted[stage.index].calibration for variant in variants]
    # The f32 variant answers as the network does, which parity has shown; it comes first.
    return Exit(output=stage.output, accuracy_float=fitted[0].accuracy, calibrations=tuple(fitted))
