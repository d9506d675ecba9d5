"""Stages as TFLite files, run by ai-edge-litert or tflite-runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Manifest, TensorSpec, Variant
from edgeexit.bundle.store import Bundle
from edgeexit.errors import RunnerError, ShapeError
from edgeexit.runner.preprocess import ImageTensors
from edgeexit.runner.protocol import LoadedStage, StageOutput, Tensors
from edgeexit.runner.runtime import TFLITE, Interpreter, Runtime, find_runtime

# What litert-torch and onnx2tf call a lone signature.
_SIGNATURE = "serving_default"


class LiteRTStage:
    """One stage in one variant, its tensors bound by signature name once and for all."""

    __slots__ = ("_boundary", "_exit", "_inputs", "_interpreter", "stage", "variant")

    def __init__(
        self,
        *,
        stage: int,
        variant: Variant,
        interpreter: Interpreter,
        inputs: Sequence[tuple[str, int]],
        boundary: Sequence[tuple[str, int]],
        exit_index: int,
    ) -> None:
        self.stage = stage
        self.variant = variant
        self._interpreter = interpreter
        self._inputs = tuple(inputs)
        self._boundary = tuple(boundary)
        self._exit = exit_index

    def run(self, tensors: Tensors) -> StageOutput:
        """Run the stage; what it gives are copies. Raises: RunnerError."""
        interpreter = self._interpreter
        try:
            for name, index in self._inputs:
                if type(tensors) is ImageTensors:  # an instance check of mappings takes far longer
                    tensors.write(name, interpreter.tensor(index)())
                    continue
                tensor = tensors[name]
                if not tensor.dtype.isnative:  # the runtimes would read its bytes the wrong way round
                    tensor = tensor.astype(tensor.dtype.newbyteorder("="))
                interpreter.set_tensor(index, tensor)
            interpreter.invoke()
            get = interpreter.get_tensor
            boundary = {name: get(index) for name, index in self._boundary}
            output = cast("NDArray[np.float32]", get(self._exit))
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise run_error(self.stage, error) from error
        return StageOutput(boundary, output[0])  # (1, C) -> (C,)


def run_error(stage: int, error: Exception) -> RunnerError:
    """What an error of a runtime means; a KeyError names a tensor that was not given."""
    if isinstance(error, KeyError):
        return RunnerError(f"stage {stage} cannot run", stage=stage, why=f"tensor {error} was not given")
    return RunnerError(f"stage {stage} failed", stage=stage, why=str(error))


def load_stage(
    bundle: Bundle, stage: int, variant: Variant, *, runtime: Runtime, threads: int
) -> LiteRTStage:
    """Load one variant of a stage and hold its signature against the manifest.

    Raises: RunnerError, ShapeError, MissingFile, UnsafePath.
    """
    manifest = bundle.manifest
    model = bundle.blob_path(variant.blob)
    if variant.format != "tflite" or runtime.name not in variant.runtimes:
        raise RunnerError(
            f"stage {stage}, variant {variant.name} cannot be loaded",
            stage=stage,
            why=f"{runtime.name} does not run it: it is for {', '.join(variant.runtimes)}",
            fix="use another variant or another runtime",
        )
    try:
        interpreter = runtime.make(model, threads)
        interpreter.allocate_tensors()
        key = signature_key(interpreter, stage)
        signature = interpreter.get_signature_runner(key)
        inputs, outputs = signature.get_input_details(), signature.get_output_details()
        main = {int(cast("int", details["index"])) for details in interpreter.get_input_details()}
    except (ValueError, RuntimeError, TypeError, MemoryError) as error:
        raise RunnerError(
            f"stage {stage}, variant {variant.name} cannot be loaded",
            stage=stage,
            why=f"{runtime.name} {runtime.version}: {error}",
        ) from error
    taken = bind_tensors(inputs, manifest.boundaries[stage].tensors, stage=stage, file=variant.blob.file)
    given = bind_tensors(outputs, given_by(manifest, stage), stage=stage, file=variant.blob.file)
    if not main.issuperset(taken.values()):
        raise RunnerError(
            f"stage {stage}, variant {variant.name} cannot be loaded",
            stage=stage,
            why="its signature is not its main graph",
            fix="give every stage a file of its own",
        )
    name = manifest.exits[stage].output.name
    return LiteRTStage(
        stage=stage,
        variant=variant,
        interpreter=interpreter,
        inputs=tuple(taken.items()),
        boundary=[(tensor, index) for tensor, index in given.items() if tensor != name],
        exit_index=given[name],
    )


def given_by(manifest: Manifest, stage: int) -> tuple[TensorSpec, ...]:
    """What a stage gives: the tensors of the next boundary, and the output of its exit."""
    last = stage == manifest.stage_count - 1
    boundary = () if last else manifest.boundaries[stage + 1].tensors
    return (*boundary, manifest.exits[stage].output)


class LiteRTRunner:
    """Runs the stages named in `variants`: all of them, or the prefix or suffix that this machine holds.

    Variants are TFLite files; `of_loaded` takes stages of any format, loaded elsewhere.
    Golden vectors are not looked at here: `open_verified` chooses variants that passed them.
    """

    def __init__(
        self,
        bundle: Bundle,
        variants: Mapping[int, str],
        *,
        threads: int = 1,
        runtime: Runtime | None = None,
    ) -> None:
        self._bundle = bundle
        self._variants = dict(variants)
        self._threads = threads
        self._runtime = runtime
        self._loaded: dict[int, LoadedStage] = {}

    @classmethod
    def of_loaded(cls, bundle: Bundle, stages: Sequence[LoadedStage], *, threads: int) -> LiteRTRunner:
        """A runner, already open, of stages that were loaded and verified elsewhere."""
        runner = cls(bundle, {loaded.stage: loaded.variant.name for loaded in stages}, threads=threads)
        runner._loaded = {loaded.stage: loaded for loaded in stages}
        return runner

    def __enter__(self) -> LiteRTRunner:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def stage_count(self) -> int:
        """K of the bundle, also where only some stages are loaded."""
        return self._bundle.manifest.stage_count

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages that run here, rising."""
        return tuple(sorted(self._variants))

    def variant(self, stage: int) -> str:
        """Name of the variant in use; for a stage that does not run here, the bundle's first one."""
        used = self._variants.get(stage)
        return used if used is not None else self._bundle.manifest.stages[stage].variants[0].name

    def open(self) -> None:
        """Load the stages; what is already loaded stays.

        Raises: RunnerError, ShapeError, MissingExtra, BundleError.
        """
        runtime = self._runtime if self._runtime is not None else find_runtime()
        for stage in self.stages:
            if stage in self._loaded:
                continue
            variant = find_variant(self._bundle.manifest, stage, self._variants[stage])
            if runtime.name == TFLITE and variant.precision == "int8":
                raise RunnerError(
                    f"stage {stage}, variant {variant.name} is refused",
                    stage=stage,
                    why=f"{TFLITE} may answer garbage to int8 without an error",
                    fix="let golden vectors decide: open the bundle verified",
                )
            self._loaded[stage] = load_stage(
                self._bundle, stage, variant, runtime=runtime, threads=self._threads
            )

    def run(self, stage: int, tensors: Tensors) -> StageOutput:
        """Run one stage. Raises: RunnerError."""
        loaded = self._loaded.get(stage)
        if loaded is None:
            raise RunnerError(f"stage {stage} cannot run", stage=stage, why="it is not loaded here")
        return loaded.run(tensors)

    def close(self) -> None:
        """Free the interpreters."""
        self._loaded.clear()


def find_variant(manifest: Manifest, stage: int, name: str) -> Variant:
    """A variant of a stage by its name. Raises: RunnerError."""
    known = manifest.stages[stage].variants if 0 <= stage < manifest.stage_count else ()
    for variant in known:
        if variant.name == name:
            return variant
    raise RunnerError(
        f"stage {stage} has no variant {name!r}",
        stage=stage,
        why=f"this bundle has {', '.join(variant.name for variant in known) or 'no such stage'}",
    )


def signature_key(interpreter: Interpreter, stage: int) -> str:
    """The key of a file's one signature, or of the one to use. Raises: RunnerError."""
    keys = list(interpreter.get_signature_list())
    if _SIGNATURE in keys:
        return _SIGNATURE
    if len(keys) == 1:
        return keys[0]
    raise RunnerError(
        f"stage {stage} cannot be loaded",
        stage=stage,
        why=f"its file has {len(keys)} signatures, one is needed to bind tensors by name",
        fix="convert the network again, keeping the names of inputs and outputs",
    )


def bind_tensors(
    details: Mapping[str, Mapping[str, object]], specs: Sequence[TensorSpec], *, stage: int, file: str
) -> dict[str, int]:
    """Tensor indices by name, where names, shapes and types are those of the manifest."""
    found = {
        name: (_shape(entry), np.dtype(cast("type", entry["dtype"])).name) for name, entry in details.items()
    }
    wanted = {spec.name: (spec.shape, spec.dtype) for spec in specs}
    if found != wanted:
        raise ShapeError(file=file, stage=stage, expected=_names(wanted), got=_names(found))
    return {spec.name: int(cast("int", details[spec.name]["index"])) for spec in specs}


def _shape(entry: Mapping[str, object]) -> tuple[int, ...]:
    return tuple(int(size) for size in cast("Sequence[int]", entry["shape"]))


def _names(tensors: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{name}{list(shape)} {dtype}" for name, (shape, dtype) in sorted(tensors.items()))
