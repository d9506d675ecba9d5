"""Runs lowered stages on the workstation, with the runtimes that boards and gateways use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Format, TensorSpec
from edgeexit.bundle.onnx import output_name
from edgeexit.convert.slicing import Arrays, SlicedStage
from edgeexit.errors import LoweringError, MissingExtra, RunnerError
from edgeexit.runner.onnx import Session, named, require_onnx_runtime, tensors_of
from edgeexit.runner.runtime import LITERT, Interpreter, Runtime, find_runtime

# What litert-torch calls the one signature of a file.
_SIGNATURE = "serving_default"
_TFLITE = b"TFL3"


class LoweredStage(Protocol):
    """Port: one open stage file, TFLite or ONNX."""

    @property
    def output_name(self) -> str:
        """Which output is the exit's."""
        ...

    def run(self, tensors: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Every output by name, the exit's among them. Shapes: as in the stage's specs."""
        ...


class LoweredTFLite:
    """One open TFLite file; tensors are bound by their names, once."""

    __slots__ = ("_inputs", "_interpreter", "_outputs", "output_name")

    def __init__(
        self, interpreter: Interpreter, inputs: dict[str, int], outputs: dict[str, int], output_name: str
    ) -> None:
        self._interpreter = interpreter
        self._inputs = inputs
        self._outputs = outputs
        self.output_name = output_name

    def run(self, tensors: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Every output by name, the exit's among them. Shapes: as in the stage's specs."""
        for name, index in self._inputs.items():
            self._interpreter.set_tensor(index, tensors[name])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


class LoweredOnnx:
    """One open ONNX file."""

    __slots__ = ("_inputs", "_outputs", "_session", "output_name")

    def __init__(self, session: Session, stage: SlicedStage) -> None:
        self._session = session
        self._inputs = [spec.name for spec in stage.inputs]
        self._outputs = [spec.name for spec in (*stage.following, stage.output)]
        self.output_name = stage.output.name

    def run(self, tensors: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Every output by name, the exit's among them. Shapes: as in the stage's specs."""
        names = [output_name(name) for name in self._outputs]
        given = self._session.run(names, {name: tensors[name] for name in self._inputs})
        return dict(zip(self._outputs, given, strict=True))


def format_of(model: bytes) -> Format:
    """What a model file is, by its first bytes."""
    return "tflite" if model[4:8] == _TFLITE else "onnx"


def litert() -> Runtime:
    """ai-edge-litert: the one runtime that is right with every variant.

    Raises: MissingExtra, RunnerError.
    """
    runtime = find_runtime()
    if runtime.name != LITERT:
        raise MissingExtra(LITERT, extra="convert", needed_for="checking lowered stages")
    return runtime


def open_stage(model: Path, stage: SlicedStage, *, runtime: Runtime | None = None) -> LoweredStage:
    """Load one stage file, one thread, and bind its tensors; `runtime` is for TFLite.

    Raises: LoweringError when it cannot be loaded, or its tensors are not those of the stage; MissingExtra,
    RunnerError.
    """
    with model.open("rb") as stream:
        begin = stream.read(8)
    if format_of(begin) == "onnx":
        return _open_onnx(model, stage)
    runtime = litert() if runtime is None else runtime
    try:
        interpreter = runtime.make(model, 1)
        interpreter.allocate_tensors()
        signature = interpreter.get_signature_runner(_SIGNATURE)
        given, got = signature.get_input_details(), signature.get_output_details()
    except (RuntimeError, ValueError) as error:
        raise LoweringError(f"the runtime refuses the file: {error}", stage=stage.index) from error
    return LoweredTFLite(
        interpreter,
        _bind(given, stage.inputs, stage.index),
        _bind(got, (*stage.following, stage.output), stage.index),
        stage.output.name,
    )


def open_chain(models: Sequence[Path], stages: Sequence[SlicedStage]) -> tuple[LoweredStage, ...]:
    """All stages of a network, open. Raises: LoweringError, MissingExtra, RunnerError."""
    return tuple(open_stage(model, stage) for model, stage in zip(models, stages, strict=True))


def _open_onnx(model: Path, stage: SlicedStage) -> LoweredOnnx:
    runtime = require_onnx_runtime(extra="convert", needed_for="checking ONNX stages")
    try:
        session = runtime.session(model, 1)
    except RunnerError as error:
        raise LoweringError(f"the runtime refuses the file: {error.why}", stage=stage.index) from error
    found, wanted = tensors_of(session), named(stage.inputs, (*stage.following, stage.output))
    if found != wanted:
        raise LoweringError(
            f"its file has {', '.join(found)} where {', '.join(wanted)} is wanted", stage=stage.index
        )
    return LoweredOnnx(session, stage)


def _bind(
    details: Mapping[str, Mapping[str, object]], specs: Sequence[TensorSpec], stage: int
) -> dict[str, int]:
    """Tensor indices by name, where names, shapes and types are those of the stage."""
    found = sorted(
        f"{name}{[int(n) for n in cast('Sequence[int]', entry['shape'])]} "
        f"{np.dtype(cast('type', entry['dtype'])).name}"
        for name, entry in details.items()
    )
    wanted = sorted(str(spec) for spec in specs)
    if found != wanted:
        raise LoweringError(
            f"its file has {', '.join(found)} where {', '.join(wanted)} is wanted", stage=stage
        )
    return {name: int(cast("int", entry["index"])) for name, entry in details.items()}
