"""The packers that a plan asks for: where each suits, and the training of those that learn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors.torch import load, save

from edgeexit.bundle.manifest import CodecName, TensorSpec
from edgeexit.bundle.store import Bundle
from edgeexit.convert.kept import KeptSteps
from edgeexit.convert.key import arrays_digest, weights_digest
from edgeexit.convert.lowered import format_of
from edgeexit.convert.packer_files import run_module, specs_of
from edgeexit.convert.packing import MadePackers, make_packers
from edgeexit.convert.plan import ConversionPlan, LabelledSet, evenly
from edgeexit.convert.progress import Steps
from edgeexit.convert.slicing import SlicedStage
from edgeexit.errors import ConfigError, UnsupportedModel
from edgeexit.models.merging import MERGED_ROUNDS, merging
from edgeexit.models.packed_state import packed_tensor, token_count, with_others
from edgeexit.models.packers import Bottleneck, PackerModules, pooling
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.training.batches import BatchSource
from edgeexit.training.bottleneck import BottleneckProgress, BottleneckTraining, train_bottleneck
from edgeexit.transport.codecs import is_packed, packer_name, uncompressed

BOTTLENECK = "bottleneck"

# A training tells its progress in so many parts.
_PARTS = 100


@dataclass(frozen=True, slots=True)
class Learning:
    """What bottlenecks learn from: batches of training images, and a name for all that shapes these."""

    source: BatchSource
    key: str


def packed_codecs(plan: ConversionPlan) -> tuple[CodecName, ...]:
    """Those of a plan's codecs that packers make, each with the one that it compresses."""
    asked = [codec for codec in plan.codecs if is_packed(codec)]
    return tuple(dict.fromkeys(name for codec in asked for name in (uncompressed(codec), codec)))


def learns(codecs: Sequence[CodecName]) -> bool:
    """Whether one of these has to be trained."""
    return any(codec.startswith(BOTTLENECK) for codec in codecs)


def untrained_packers(
    boundary: int, specs: Sequence[TensorSpec], codecs: Sequence[CodecName]
) -> tuple[PackerModules, ...]:
    """The packers behind these codecs that suit a boundary, bottlenecks with weights that mean nothing."""
    made, _ = _suited(boundary, specs, codecs)
    return made


def require_suited(stages: Sequence[SlicedStage], codecs: Sequence[CodecName]) -> None:
    """Refuse codecs that suit no boundary at all. Raises: ConfigError."""
    found: set[str] = set()
    why = "there is one stage alone, and nothing between stages"
    for stage in stages[1:]:
        made, reasons = _suited(stage.index, stage.inputs, codecs)
        found |= {codec for packer in made for codec in packer.codecs}
        why = "; ".join(reasons) or why
    missing = [codec for codec in codecs if codec not in found]
    if missing:
        raise ConfigError(
            f"no boundary can travel as {', '.join(missing)}", key="codecs", why=why, fix="leave it out"
        )


def require_tflite(model: Path, codecs: Sequence[CodecName]) -> None:
    """Refuse packers beside ONNX stages: a packer is TFLite, and who runs both has a TFLite runtime.

    Raises: ConfigError.
    """
    if codecs and format_of(model.read_bytes()[:8]) == "onnx":
        raise ConfigError(
            f"ONNX stages have no packers for {', '.join(codecs)}",
            key="codecs",
            why="packers are TFLite models, and run on the runtime of TFLite stages",
            fix="convert by litert-torch, with the variant onnx beside the others, or leave these codecs out",
        )


def packed_shapes(packer: PackerModules, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """What a packer makes of a boundary."""
    zeros = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in specs}
    return specs_of(run_module(packer.pack.eval(), zeros))


def make_plan_packers(
    network: MultiExitNetwork,
    stages: Sequence[SlicedStage],
    plan: ConversionPlan,
    draft: Bundle,
    calibration: LabelledSet,
    learning: Learning | None,
    kept: KeptSteps,
    steps: Steps,
) -> dict[int, MadePackers]:
    """What packers the plan asks for, boundary by boundary; `draft` is the bundle without them.

    A trained bottleneck and the packers of a boundary are steps of their own, found after a stop.
    Raises: ConfigError, TrainingDiverged, LoweringError, MissingExtra, RunnerError.
    """
    codecs = packed_codecs(plan)
    subset = evenly(len(calibration.images), plan.codec_samples)
    images = arrays_digest({"images": calibration.images[subset], "targets": calibration.targets[subset]})
    made: dict[int, MadePackers] = {}
    for stage in stages[1:]:
        packers = untrained_packers(stage.index, stage.inputs, codecs)
        if not packers:
            continue
        weights = b""
        if any(packer.name.startswith(BOTTLENECK) for packer in packers):
            weights = _trained(network, stage, plan, require_learning(learning), kept, steps)
            packers = _suited(stage.index, stage.inputs, codecs, weights)[0]
        with steps.step(f"packers {stage.index}", len(subset)) as tell:
            make = partial(_made, draft, stage.index, packers, calibration, plan, tell)
            parts = [draft.digest, images, repr([packer.codecs for packer in packers])]
            parts.append(arrays_digest({"weights": np.frombuffer(weights, np.uint8)}))
            found = kept.file(f"packers-{stage.index}", parts, make).read_bytes()
            made[stage.index] = msgspec.msgpack.decode(found, type=MadePackers)
    return made


def _made(
    draft: Bundle,
    boundary: int,
    packers: Sequence[PackerModules],
    calibration: LabelledSet,
    plan: ConversionPlan,
    tell: Callable[[int], None],
) -> bytes:
    return msgspec.msgpack.encode(
        make_packers(
            draft,
            boundary,
            packers,
            calibration,
            samples=plan.codec_samples,
            error_scale=plan.quality_scale,
            tell=tell,
        )
    )


def require_learning(learning: Learning | None) -> Learning:
    """What bottlenecks learn from. Raises: ConfigError where nothing is given."""
    if learning is None:
        raise ConfigError(
            "a bottleneck has nothing to learn from",
            key="data",
            why="its two halves are trained, on images that are not held out",
            fix="convert a recipe, or give data with a training part: --data imagefolder:FOLDER",
        )
    return learning


def _trained(
    network: MultiExitNetwork,
    stage: SlicedStage,
    plan: ConversionPlan,
    learning: Learning,
    kept: KeptSteps,
    steps: Steps,
) -> bytes:
    """The weights of the bottleneck of a boundary, as safetensors."""
    config = BottleneckTraining(samples=plan.bottleneck_samples, seconds=plan.bottleneck_seconds)
    (spec,) = stage.inputs
    name = f"bottleneck-{stage.index}"
    with steps.step(name.replace("-", " "), _PARTS) as tell:

        def train() -> bytes:
            bottleneck = _bottleneck(stage.index, spec)

            def told(state: BottleneckProgress) -> None:
                tell(round(_PARTS * state.fraction))

            train_bottleneck(
                network,
                stage.index,
                bottleneck,
                learning.source,
                config,
                clock_s=time.monotonic,
                progress=told,
            )
            return bytes(save({key: value.contiguous() for key, value in bottleneck.state_dict().items()}))

        parts = [weights_digest(network), learning.key, repr(config)]
        return kept.file(name, parts, train).read_bytes()


def _bottleneck(boundary: int, spec: TensorSpec, weights: bytes = b"") -> Bottleneck:
    """With these weights, else with those that training begins with: the same ones each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(boundary)
        made = Bottleneck(spec.shape[2], spec.shape[1])
    if weights:
        made.load_state_dict(load(weights))
    return made.eval()


def _suited(
    boundary: int, specs: Sequence[TensorSpec], codecs: Sequence[CodecName], weights: bytes = b""
) -> tuple[tuple[PackerModules, ...], list[str]]:
    """The packers that suit a boundary, and why others do not."""
    held = ", ".join(map(str, specs))
    spec = packed_tensor(specs)
    if boundary == 0 or spec is None:
        return (), [f"boundary {boundary} holds {held}: neither tokens nor a map"]
    names = dict.fromkeys(packer_name(codec) for codec in codecs)
    made: list[PackerModules] = []
    reasons = []
    tokens = token_count(spec)
    for name in names:
        if name.startswith(BOTTLENECK):
            continue
        try:
            one = (
                pooling(spec.name, tokens, boundary)
                if name == "pool4"
                else merging(spec.name, tokens, boundary, _merged(name))
            )
        except UnsupportedModel as error:
            reasons.append(f"boundary {boundary}: {error.what}")
            continue
        made.append(with_others(one, spec, specs))
    if any(name.startswith(BOTTLENECK) for name in names):
        if len(specs) == 1 and len(spec.shape) == 3:
            made += _bottleneck(boundary, spec, weights).halves(spec.name, boundary)
        else:
            reasons.append(f"boundary {boundary} holds {held}: a bottleneck takes one tensor of tokens")
    wanted = [
        replace(one, codecs=tuple(codec for codec in one.codecs if codec in codecs))
        for one in made
        if one.name in names
    ]
    return tuple(wanted), reasons


def _merged(name: str) -> int:
    """How many patches become one in the packer of this name."""
    return next(merged for merged in MERGED_ROUNDS if name == f"merge{merged}")
