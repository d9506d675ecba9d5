"""Packers at work: on a device what is sent of a boundary is made here, on a gateway the boundary of that.

Both halves are models of the bundle, used only after their golden vectors passed on this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Packer, TensorSpec
from edgeexit.bundle.packer_golden import PackerGolden
from edgeexit.bundle.store import Bundle
from edgeexit.errors import BundleError, RunnerError, ShapeError
from edgeexit.runner.examine import LEAST_AGREEMENT, agreement_of
from edgeexit.runner.litert import bind_tensors, signature_key
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.runner.runtime import Interpreter, Runtime, find_runtime

# Two unrelated sets of values of one size differ by 1.4 of it, halved ones by 0.5; stages in int8 move what a
# packer gives by up to a fifth.
PACKED_DIFFERENCE = 0.4
# Of what a packer chooses by comparing, such as which token goes where: when stages in int8 moved the tokens,
# six of ten choices stayed the same; a broken kernel meets one of as many as there are places.
LEAST_SAME = 0.3


@dataclass(frozen=True, slots=True)
class PackerRejected:
    """A half of a packer that is not used here, and why."""

    boundary: int
    packer: str
    why: str


class PackerModel:
    """One half of a packer, loaded, its tensors bound by name."""

    __slots__ = ("_gives", "_interpreter", "_takes", "boundary")

    def __init__(
        self, boundary: int, interpreter: Interpreter, takes: Mapping[str, int], gives: Mapping[str, int]
    ) -> None:
        self.boundary = boundary
        self._interpreter = interpreter
        self._takes = tuple(takes.items())
        self._gives = tuple(gives.items())

    def run(self, tensors: Tensors) -> dict[str, NDArray[np.generic]]:
        """What the model gives, as copies. Raises: RunnerError."""
        interpreter = self._interpreter
        try:
            for name, index in self._takes:
                tensor = tensors[name]
                if not tensor.dtype.isnative:  # the runtimes would read its bytes the wrong way round
                    tensor = tensor.astype(tensor.dtype.newbyteorder("="))
                interpreter.set_tensor(index, tensor)
            interpreter.invoke()
            return {name: interpreter.get_tensor(index) for name, index in self._gives}
        except KeyError as error:
            why = f"tensor {error} was not given"
            raise RunnerError(f"a packer of boundary {self.boundary} cannot run", why=why) from error
        except (ValueError, RuntimeError, TypeError) as error:
            raise RunnerError(f"a packer of boundary {self.boundary} failed", why=str(error)) from error


class Packers:
    """The halves of a bundle's packers that work here, all of one side. One thread at a time uses them."""

    def __init__(
        self,
        bundle: Bundle,
        models: Mapping[tuple[int, str], PackerModel],
        rejected: Sequence[PackerRejected] = (),
    ) -> None:
        self._boundaries = bundle.manifest.boundaries
        self._models = dict(models)
        self.rejected = tuple(rejected)

    @property
    def codecs(self) -> frozenset[tuple[int, str]]:
        """Boundary and codec of all that can be packed, or unpacked, here."""
        return frozenset(
            (index, codec)
            for index, boundary in enumerate(self._boundaries)
            for packer in boundary.packers or ()
            if (index, packer.name) in self._models
            for codec in packer.codecs
        )

    def of_tensors(self, boundary: int, names: frozenset[str]) -> Packer | None:
        """The packer whose tensors have these names, where it works here."""
        for packer in self._boundaries[boundary].packers or ():
            if (boundary, packer.name) in self._models and names == {each.name for each in packer.tensors}:
                return packer
        return None

    def run(self, boundary: int, packer: Packer, tensors: Tensors) -> Tensors:
        """Pack, or unpack, one boundary's tensors. Raises: RunnerError."""
        model = self._models.get((boundary, packer.name))
        if model is None:
            raise RunnerError(
                f"packer {packer.name} cannot run", why=f"it is not loaded for boundary {boundary}"
            )
        return model.run(tensors)


def open_packing(
    bundle: Bundle, runner: Runner, *, threads: int = 1, runtime: Runtime | None = None
) -> Packers:
    """The device's halves that proved correct here, behind the stages that `runner` runs.

    Raises: BundleError, MissingExtra; RunnerError where a stage fails.
    """
    return _open(bundle, runner, threads, runtime, packs=True)


def open_unpacking(
    bundle: Bundle, runner: Runner, *, threads: int = 1, runtime: Runtime | None = None
) -> Packers:
    """The gateway's halves that proved correct here, before the stages that `runner` runs.

    Raises: BundleError, MissingExtra; RunnerError where a stage fails.
    """
    return _open(bundle, runner, threads, runtime, packs=False)


def load_packer(
    bundle: Bundle, boundary: int, packer: Packer, *, packs: bool, runtime: Runtime, threads: int
) -> PackerModel:
    """One half of a packer, not proved. Raises: RunnerError, ShapeError, BundleError."""
    own, boundary_specs = packer.tensors, bundle.manifest.boundaries[boundary].tensors
    if runtime.name not in packer.runtimes:
        raise RunnerError(
            f"{_half_words(packer.name, boundary)} cannot be loaded", why=f"{runtime.name} does not run it"
        )
    blob, takes, gives = (packer.pack, boundary_specs, own) if packs else (packer.unpack, own, boundary_specs)
    try:
        path = bundle.blob_path(blob)
    except BundleError as error:
        raise RunnerError(
            f"{_half_words(packer.name, boundary)} cannot be loaded", why=f"{runtime.name}: {error}"
        ) from error
    return load_half(path, packer.name, boundary, takes, gives, runtime=runtime, threads=threads)


def load_half(
    model: Path,
    name: str,
    boundary: int,
    takes: Sequence[TensorSpec],
    gives: Sequence[TensorSpec],
    *,
    runtime: Runtime,
    threads: int,
) -> PackerModel:
    """The file of one half of packer `name`, not proved. Raises: RunnerError, ShapeError."""
    what = _half_words(name, boundary)
    try:
        interpreter = runtime.make(model, threads)
        interpreter.allocate_tensors()
        signature = interpreter.get_signature_runner(signature_key(interpreter, boundary))
        inputs, outputs = signature.get_input_details(), signature.get_output_details()
        main = {int(cast("int", details["index"])) for details in interpreter.get_input_details()}
    except (ValueError, RuntimeError, TypeError, MemoryError) as error:
        raise RunnerError(f"{what} cannot be loaded", why=f"{runtime.name}: {error}") from error
    taken = bind_tensors(inputs, takes, stage=boundary, file=model.name)
    given = bind_tensors(outputs, gives, stage=boundary, file=model.name)
    if not main.issuperset(taken.values()):
        raise RunnerError(f"{what} cannot be loaded", why="its signature is not its main graph")
    return PackerModel(boundary, interpreter, taken, given)


def _half_words(name: str, boundary: int) -> str:
    return f"packer {name} of boundary {boundary}"


def _open(bundle: Bundle, runner: Runner, threads: int, runtime: Runtime | None, *, packs: bool) -> Packers:
    models: dict[tuple[int, str], PackerModel] = {}
    rejected: list[PackerRejected] = []
    if not bundle.manifest.packers():
        return Packers(bundle, models)
    used = runtime if runtime is not None else find_runtime()
    golden = bundle.golden()
    proofs = {packer.golden: bundle.packer_golden(packer) for packer in bundle.manifest.packers()}
    count = min(golden.count, max(vectors.count for vectors in proofs.values()))
    states: list[Tensors] = [golden.sample(row) for row in range(count)]
    for index, boundary in enumerate(bundle.manifest.boundaries):
        for packer in boundary.packers or ():
            vectors = proofs[packer.golden]
            try:
                model = load_packer(bundle, index, packer, packs=packs, runtime=used, threads=threads)
                why = (
                    _prove_pack(model, packer, states, vectors)
                    if packs
                    else _prove_unpack(model, packer, runner, vectors)
                )
            except (RunnerError, ShapeError) as error:
                why = str(error)
            if why is None:
                models[index, packer.name] = model
            else:
                rejected.append(PackerRejected(index, packer.name, why))
        # Only the way to a boundary that has packers is worth running.
        last = index == len(bundle.manifest.boundaries) - 1
        if packs and not last and any(each.packers for each in bundle.manifest.boundaries[index + 1 :]):
            states = [runner.run(index, state).boundary for state in states]
    return Packers(bundle, models, rejected)


def _prove_pack(
    model: PackerModel, packer: Packer, states: Sequence[Tensors], vectors: PackerGolden
) -> str | None:
    """Why this half is wrong here; None where it is right."""
    if vectors.count > len(states):
        return f"it has {vectors.count} golden vectors, the bundle {len(states)}"
    made = [model.run(state) for state in states[: vectors.count]]
    chosen = {spec.name for spec in packer.tensors if spec.dtype != "float32"}
    for name, expected in vectors.packed.items():
        got = np.stack([each[name] for each in made]).astype(np.float64)
        if name in chosen:
            same = float((got == expected).mean())
            if same < LEAST_SAME:
                return f"{name} has {same:.0%} of its choices, {LEAST_SAME:.0%} are wanted"
            continue
        difference = float(np.linalg.norm(got - expected))
        size = float(np.linalg.norm(expected.astype(np.float64)))
        if not difference <= PACKED_DIFFERENCE * max(size, 1e-6):  # also where it is not a number
            share = difference / max(size, 1e-6)
            return f"{name} differs by {share:.3g} of its size, {PACKED_DIFFERENCE:g} is allowed"
    return None


def _prove_unpack(model: PackerModel, packer: Packer, runner: Runner, vectors: PackerGolden) -> str | None:
    """Why this half is wrong here; None where it is right."""
    answers = []
    dtypes = {spec.name: np.dtype(spec.dtype) for spec in packer.tensors}
    for row in range(vectors.count):
        came = {name: values[row].astype(dtypes[name]) for name, values in vectors.arrived.items()}
        state: Tensors = model.run(came)
        for stage in range(model.boundary, runner.stage_count):
            given = runner.run(stage, state)
            state = given.boundary
        answers.append(given.output)
    got = np.stack(answers).astype(np.float32)  # (n, C)
    # As for stages in int8, whose answers may differ by up to half of the largest.
    allowed = max(1.0, float(np.abs(vectors.answers).max())) / 2.0
    difference = float(np.abs(got - vectors.answers).max())
    if not difference <= allowed:
        return f"answers differ by {difference:.3g}, {allowed:.3g} is allowed"
    if got.shape[1] > 2 and agreement_of(got, vectors.answers) < LEAST_AGREEMENT:
        return f"fewer than {LEAST_AGREEMENT:.0%} of the golden vectors keep their label"
    return None
