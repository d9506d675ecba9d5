"""The files of a packer: both halves lowered, held against their modules, with golden vectors.

Requires: a packer's modules, and the real tensors of its boundary.
Ensures: files that do on a runtime what the modules do in torch, and the vectors that prove it elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgeexit.bundle.manifest import DType, Packer, TensorSpec
from edgeexit.bundle.packer_golden import PackerGolden, encode_packer_golden
from edgeexit.bundle.store import Bundle
from edgeexit.bundle.write import model_blob
from edgeexit.convert.lowering import lower_module
from edgeexit.errors import LoweringError
from edgeexit.models.packers import PackerModules
from edgeexit.runner.packing import PackerModel, load_half
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.runner.runtime import LITERT, TFLITE, find_runtime
from edgeexit.transport.codecs import decode_tensors, encode_tensors

# What a runtime may add to a float packer, relative to its largest value: as for stages.
PARITY = 1e-4
# Where a packer chooses by comparing, a difference in the last bit may choose otherwise: all that comes back
# may then differ by this much of its size. One token of 64 that goes astray is about as much.
CHOSEN_PARITY = 0.1

_Arrays = dict[str, NDArray[np.generic]]
_DTYPES: dict[str, DType] = {"float32": "float32", "uint8": "uint8", "int32": "int32"}


@dataclass(frozen=True, slots=True)
class PackerFiles:
    """A packer with its files by name, and both halves of it, loaded here."""

    packer: Packer
    files: Mapping[str, bytes]
    pack: PackerModel
    unpack: PackerModel


def make_files(
    bundle: Bundle, runner: Runner, modules: PackerModules, states: Sequence[Tensors], folder: Path
) -> PackerFiles:
    """Lower both halves into `folder`, and prove them on real boundaries.

    Raises: LoweringError, MissingExtra, RunnerError, ShapeError.
    """
    boundary = modules.boundary
    pack, unpack = modules.pack.eval(), modules.unpack.eval()
    packed = run_module(pack, states[0])
    # What arrives is a little different; the shapes are the same.
    back = run_module(unpack, packed)
    wanted = sorted(str(spec) for spec in bundle.manifest.boundaries[boundary].tensors)
    found = sorted(str(spec) for spec in specs_of(back))
    if found != wanted:
        raise LoweringError(
            f"packer {modules.name} gives back {', '.join(found)} for {', '.join(wanted)}", stage=boundary
        )
    taken, given = bundle.manifest.boundaries[boundary].tensors, specs_of(packed)
    files = [lower_module(pack, states[0], boundary), lower_module(unpack, packed, boundary)]
    halves = []
    for file, takes, gives in zip(files, (taken, given), (given, taken), strict=True):
        place = folder / model_blob(file).sha256
        place.write_bytes(file)
        halves.append(
            load_half(place, modules.name, boundary, takes, gives, runtime=find_runtime(), threads=1)
        )
    golden = _golden(runner, modules, given, halves[0], halves[1], states)
    blobs = [model_blob(each) for each in (*files, golden)]
    packer = Packer(
        name=modules.name,
        codecs=modules.codecs,
        tensors=given,
        pack=blobs[0],
        unpack=blobs[1],
        golden=blobs[2],
        runtimes=(LITERT, TFLITE),
    )
    named = {blob.file: each for blob, each in zip(blobs, (*files, golden), strict=True)}
    return PackerFiles(packer, named, halves[0], halves[1])


def answer_of(runner: Runner, boundary: int, tensors: Tensors) -> NDArray[np.float32]:
    """The last exit's output to the tensors of a boundary. Shapes: result (C,)."""
    state = tensors
    for stage in range(boundary, runner.stage_count):
        given = runner.run(stage, state)
        state = given.boundary
    return np.asarray(given.output, np.float32)


def run_module(module: torch.nn.Module, tensors: Tensors) -> _Arrays:
    """The float module. Raises: nothing of its own."""
    with torch.no_grad():
        given = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()}
        made: dict[str, torch.Tensor] = module(**given)
    return {name: tensor.numpy() for name, tensor in made.items()}


def specs_of(tensors: Tensors) -> tuple[TensorSpec, ...]:
    """What tensors are called, their shapes and types. Raises: LoweringError for types that never travel."""
    for name, value in tensors.items():
        if value.dtype.name not in _DTYPES:
            raise LoweringError(f"a packer gives {name} as {value.dtype.name}", stage=0)
    return tuple(
        TensorSpec(name=name, shape=value.shape, dtype=_DTYPES[value.dtype.name])
        for name, value in tensors.items()
    )


def _golden(
    runner: Runner,
    modules: PackerModules,
    specs: Sequence[TensorSpec],
    pack: PackerModel,
    unpack: PackerModel,
    states: Sequence[Tensors],
) -> bytes:
    """The golden vectors, the files held against the modules on each of them. Raises: LoweringError."""
    packed, arrived, answers = [], [], []
    for state in states:
        expected = run_module(modules.pack, state)
        _hold_pack(modules, specs, expected, pack.run(state))
        came = decode_tensors(encode_tensors(expected, modules.codecs[0]), specs)
        back = unpack.run(came)
        _hold(modules, run_module(modules.unpack, came), back)
        packed.append(expected)
        arrived.append(came)
        answers.append(answer_of(runner, modules.boundary, back))
    return encode_packer_golden(
        PackerGolden(
            packed={spec.name: _stacked(packed, spec.name) for spec in specs},
            arrived={spec.name: _stacked(arrived, spec.name) for spec in specs},
            answers=np.stack(answers),
        )
    )


def _hold_pack(modules: PackerModules, specs: Sequence[TensorSpec], expected: Tensors, got: Tensors) -> None:
    """What the device's half gives; where it chooses, held by what comes back of it."""
    if all(spec.dtype == "float32" for spec in specs):
        _hold(modules, expected, got)
        return
    restored, wanted = run_module(modules.unpack, got), run_module(modules.unpack, expected)
    for name, values in wanted.items():
        off = float(np.linalg.norm(restored[name].astype(np.float64) - values.astype(np.float64)))
        size = float(np.linalg.norm(values.astype(np.float64)))
        if not off <= CHOSEN_PARITY * max(size, 1e-6):
            raise LoweringError(
                f"packer {modules.name} gives back {name} {off / max(size, 1e-6):.3g} of its size away",
                stage=modules.boundary,
            )


def _hold(modules: PackerModules, expected: Tensors, got: Tensors) -> None:
    for name, values in expected.items():
        wanted = values.astype(np.float64)
        difference = float(np.abs(got[name].astype(np.float64) - wanted).max())
        if not difference <= PARITY * max(1.0, float(np.abs(wanted).max())):
            raise LoweringError(
                f"packer {modules.name} differs by {difference:.3g} in {name}", stage=modules.boundary
            )


def _stacked(rows: Sequence[Tensors], name: str) -> NDArray[np.float32]:
    """Shapes: result (n, *shape)."""
    return np.stack([row[name] for row in rows]).astype(np.float32)
