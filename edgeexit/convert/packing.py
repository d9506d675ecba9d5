"""Adding packers to a bundle: lowered, proved against the float modules, and measured like any codec.

Requires: a bundle, packers of its boundaries, and images held out of all training.
Ensures: another bundle, its stages the same, with the packers' files, their bytes and what they cost.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import torch
from msgspec import structs
from numpy.typing import NDArray

from edgeexit.bundle.manifest import (
    Boundary,
    BoundaryCodec,
    CodecName,
    Manifest,
    Packer,
    TensorSpec,
)
from edgeexit.bundle.packer_golden import PackerGolden, encode_packer_golden
from edgeexit.bundle.store import Bundle
from edgeexit.bundle.write import model_blob, write_bundle
from edgeexit.convert.accuracy import answers_of, quality
from edgeexit.convert.codecs import COMPRESSED_BELOW
from edgeexit.convert.lowering import lower_module
from edgeexit.convert.plan import LabelledSet, evenly, network_input
from edgeexit.errors import ConfigError, LoweringError
from edgeexit.models.packers import PackerModules
from edgeexit.runner.litert import LiteRTRunner
from edgeexit.runner.packing import PackerModel, load_packer
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.runner.runtime import LITERT, TFLITE, find_runtime
from edgeexit.transport.codecs import (
    decode_tensors,
    encode_tensors,
    payload_bytes,
    sent_bytes,
    size_varies,
    uncompressed,
)

# What a runtime may add to a float packer, relative to its largest value: as for stages.
PARITY = 1e-4
GOLDEN_VECTORS = 4

_Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class _Lowered:
    modules: PackerModules
    packer: Packer
    files: Mapping[str, bytes]


def add_packers(
    bundle: Bundle,
    packers: Sequence[PackerModules],
    labelled: LabelledSet,
    *,
    out: Path,
    samples: int = 500,
    error_scale: float = 1.0,
    replace: bool = False,
    tell: Callable[[int], None] = lambda done: None,
) -> Bundle:
    """A bundle at `out` with these packers beside its codecs; `bundle` itself is left as it is.

    Packers that it already has for a boundary are kept, those of the same name replaced. A compressed form
    is offered only where it saves enough. `tell` learns how many images are done.
    Shapes: images (n, C, H, W). Raises: LoweringError, MissingExtra, BundleError, RunnerError, ConfigError.
    """
    manifest = bundle.manifest
    for each in packers:
        if not 1 <= each.boundary < manifest.stage_count:
            raise ConfigError("packer is refused", key="boundary", why=f"{each.boundary} holds no tokens")
    runner = LiteRTRunner(bundle, {k: stage.variants[0].name for k, stage in enumerate(manifest.stages)})
    with runner:
        golden = bundle.golden()
        states = [_states(runner, golden.sample(row)) for row in range(min(GOLDEN_VECTORS, golden.count))]
        lowered = [_lower(each, manifest, [state[each.boundary] for state in states]) for each in packers]
        files = {blob.file: bundle.blob_path(blob).read_bytes() for blob in manifest.blobs()}
        for one in lowered:
            files |= one.files
        with tempfile.TemporaryDirectory(prefix="edgeexit-packers-") as folder:
            drafted = _draft(bundle, lowered, Path(folder) / "draft", files)
            halves = [_halves(drafted, one) for one in lowered]
            finished = [
                _with_golden(runner, one, half, [state[one.modules.boundary] for state in states])
                for one, half in zip(lowered, halves, strict=True)
            ]
            chosen = evenly(len(labelled.images), samples)
            measured = _measure(
                runner, finished, halves, labelled, chosen, manifest, error_scale=error_scale, tell=tell
            )
    for one in finished:
        files |= one.files
    described = _described(manifest, finished, measured)
    return write_bundle(
        out, described, {blob.file: files[blob.file] for blob in described.blobs()}, replace=replace
    )


def _states(runner: Runner, tensors: Tensors) -> list[Tensors]:
    """The tensors of every boundary."""
    states = [tensors]
    for stage in range(runner.stage_count - 1):
        states.append(runner.run(stage, states[-1]).boundary)
    return states


def _lower(modules: PackerModules, manifest: Manifest, states: Sequence[Tensors]) -> _Lowered:
    """Both halves as files, held against the modules on real boundaries. Raises: LoweringError."""
    boundary = modules.boundary
    pack, unpack = modules.pack.eval(), modules.unpack.eval()
    packed = _run(pack, states[0])
    # What arrives is a little different; the shapes are the same.
    back = _run(unpack, packed)
    wanted = sorted(str(spec) for spec in manifest.boundaries[boundary].tensors)
    found = sorted(str(spec) for spec in _specs(back))
    if found != wanted:
        raise LoweringError(
            f"packer {modules.name} gives back {', '.join(found)} for {', '.join(wanted)}", stage=boundary
        )
    pack_file = lower_module(pack, states[0], boundary)
    unpack_file = lower_module(unpack, packed, boundary)
    blobs = (model_blob(pack_file), model_blob(unpack_file))
    placeholder = model_blob(b"golden")
    packer = Packer(
        name=modules.name,
        codecs=modules.codecs,
        tensors=_specs(packed),
        pack=blobs[0],
        unpack=blobs[1],
        golden=placeholder,
        runtimes=(LITERT, TFLITE),
    )
    files = {blobs[0].file: pack_file, blobs[1].file: unpack_file, placeholder.file: b"golden"}
    return _Lowered(modules, packer, files)


def _draft(bundle: Bundle, lowered: Sequence[_Lowered], out: Path, files: Mapping[str, bytes]) -> Bundle:
    """A bundle to load the files from, before anything of them is known."""
    unknown = {
        (one.modules.boundary, codec): BoundaryCodec(codec=codec, payload_bytes=1, quality_cost=0.0)
        for one in lowered
        for codec in one.packer.codecs
    }
    described = _described(bundle.manifest, lowered, unknown)
    return write_bundle(out, described, {blob.file: files[blob.file] for blob in described.blobs()})


def _halves(bundle: Bundle, one: _Lowered) -> tuple[PackerModel, PackerModel]:
    runtime = find_runtime()
    pack, unpack = (
        load_packer(bundle, one.modules.boundary, one.packer, packs=packs, runtime=runtime, threads=1)
        for packs in (True, False)
    )
    return pack, unpack


def _with_golden(
    runner: Runner, one: _Lowered, halves: tuple[PackerModel, PackerModel], states: Sequence[Tensors]
) -> _Lowered:
    """The packer with its golden vectors, its files held against its modules. Raises: LoweringError."""
    boundary, specs = one.modules.boundary, one.packer.tensors
    packed, arrived, answers = [], [], []
    for state in states:
        expected = _run(one.modules.pack, state)
        _hold(one, expected, halves[0].run(state))
        came = decode_tensors(encode_tensors(expected, one.packer.codecs[0]), specs)
        _hold(one, _run(one.modules.unpack, came), halves[1].run(came))
        packed.append(expected)
        arrived.append(came)
        answers.append(_answer(runner, boundary, halves[1].run(came)))
    golden = encode_packer_golden(
        PackerGolden(
            packed={spec.name: _stacked(packed, spec.name) for spec in specs},
            arrived={spec.name: _stacked(arrived, spec.name) for spec in specs},
            answers=np.stack(answers),
        )
    )
    blob = model_blob(golden)
    files = {one.packer.pack.file: one.files[one.packer.pack.file]}
    files |= {one.packer.unpack.file: one.files[one.packer.unpack.file], blob.file: golden}
    return _Lowered(one.modules, structs.replace(one.packer, golden=blob), files)


def _hold(one: _Lowered, expected: Tensors, got: Tensors) -> None:
    for name, values in expected.items():
        wanted = values.astype(np.float64)
        difference = float(np.abs(got[name].astype(np.float64) - wanted).max())
        if not difference <= PARITY * max(1.0, float(np.abs(wanted).max())):
            raise LoweringError(
                f"packer {one.modules.name} differs by {difference:.3g} in {name}", stage=one.modules.boundary
            )


def _measure(
    runner: Runner,
    lowered: Sequence[_Lowered],
    halves: Sequence[tuple[PackerModel, PackerModel]],
    labelled: LabelledSet,
    chosen: Sequence[int],
    manifest: Manifest,
    *,
    error_scale: float,
    tell: Callable[[int], None],
) -> dict[tuple[int, CodecName], BoundaryCodec]:
    """Bytes and cost of every codec of every packer; no entry for compression that saves too little."""
    width = manifest.exits[-1].output.shape[-1]
    keys = [(one.modules.boundary, codec) for one in lowered for codec in one.packer.codecs]
    outputs = {(b, uncompressed(codec)): np.empty((1, len(chosen), width), np.float32) for b, codec in keys}
    plain = np.empty((1, len(chosen), width), np.float32)
    sizes = {key: np.empty(len(chosen)) for key in keys}
    for row, index in enumerate(chosen):
        name = manifest.boundaries[0].tensors[0].name
        states = _states(runner, {name: network_input(labelled.images[index])[None]})  # C H W -> 1 C H W
        plain[0, row] = _answer(runner, runner.stage_count - 1, states[-1])
        for one, (pack, unpack) in zip(lowered, halves, strict=True):
            boundary = one.modules.boundary
            packed = pack.run(states[boundary])
            for codec in one.packer.codecs:
                sent = encode_tensors(packed, codec)
                sizes[boundary, codec][row] = sent_bytes(sent)
                if codec == uncompressed(codec):
                    came = unpack.run(decode_tensors(sent, one.packer.tensors))
                    outputs[boundary, codec][0, row] = _answer(runner, boundary, came)
        tell(row + 1)
    targets = labelled.targets[list(chosen)]

    def mean(answers: NDArray[np.float32]) -> float:
        found = quality(answers_of(answers, manifest.task), targets, manifest.task, error_scale)
        return float(found.mean())

    best = mean(plain)
    measured: dict[tuple[int, CodecName], BoundaryCodec] = {}
    for one in lowered:
        for codec in one.packer.codecs:
            key = (one.modules.boundary, codec)
            cost = max(0.0, best - mean(outputs[key[0], uncompressed(codec)]))
            if not size_varies(codec):
                size_bytes = payload_bytes(one.packer.tensors, codec)
                measured[key] = BoundaryCodec(codec=codec, payload_bytes=size_bytes, quality_cost=cost)
                continue
            mean_bytes, p95_bytes = ceil(sizes[key].mean()), ceil(np.quantile(sizes[key], 0.95))
            if mean_bytes <= COMPRESSED_BELOW * payload_bytes(one.packer.tensors, uncompressed(codec)):
                measured[key] = BoundaryCodec(
                    codec=codec, payload_bytes=mean_bytes, quality_cost=cost, p95_bytes=p95_bytes
                )
    return measured


def _described(
    manifest: Manifest,
    lowered: Sequence[_Lowered],
    measured: Mapping[tuple[int, CodecName], BoundaryCodec],
) -> Manifest:
    """The manifest with these packers and what is known of their codecs."""
    return structs.replace(
        manifest,
        boundaries=tuple(
            _boundary(
                boundary, [one.packer for one in lowered if one.modules.boundary == index], index, measured
            )
            for index, boundary in enumerate(manifest.boundaries)
        ),
    )


def _boundary(
    boundary: Boundary,
    packers: Sequence[Packer],
    index: int,
    measured: Mapping[tuple[int, CodecName], BoundaryCodec],
) -> Boundary:
    if not packers:
        return boundary
    names = {packer.name for packer in packers}
    replaced = {codec for packer in packers for codec in packer.codecs}
    offered = [
        structs.replace(packer, codecs=tuple(codec for codec in packer.codecs if (index, codec) in measured))
        for packer in packers
    ]
    return structs.replace(
        boundary,
        codecs=(
            *(codec for codec in boundary.codecs if codec.codec not in replaced),
            *(measured[index, codec] for packer in offered for codec in packer.codecs),
        ),
        packers=(*(packer for packer in boundary.packers or () if packer.name not in names), *offered),
    )


def _run(module: torch.nn.Module, tensors: Tensors) -> _Arrays:
    """The float module. Raises: nothing of its own."""
    with torch.no_grad():
        given = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()}
        made: dict[str, torch.Tensor] = module(**given)
    return {name: tensor.numpy() for name, tensor in made.items()}


def _answer(runner: Runner, boundary: int, tensors: Tensors) -> NDArray[np.float32]:
    """The last exit's output. Shapes: result (C,)."""
    state = tensors
    for stage in range(boundary, runner.stage_count):
        given = runner.run(stage, state)
        state = given.boundary
    return np.asarray(given.output, np.float32)


def _specs(tensors: Tensors) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=name, shape=value.shape) for name, value in tensors.items())


def _stacked(rows: Sequence[Tensors], name: str) -> NDArray[np.float32]:
    """Shapes: result (n, *shape)."""
    return np.stack([row[name] for row in rows]).astype(np.float32)
