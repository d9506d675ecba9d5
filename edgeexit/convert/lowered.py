"""Runs lowered stages on the workstation, with the runtime that boards use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import TensorSpec
from edgeexit.convert.slicing import Arrays, SlicedStage
from edgeexit.errors import LoweringError, MissingExtra
from edgeexit.runner.runtime import LITERT, Interpreter, Runtime, find_runtime

# What litert-torch calls the one signature of a file.
_SIGNATURE = "serving_default"


class LoweredStage:
    """One open stage file; tensors are bound by their names, once."""

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


def litert() -> Runtime:
    """ai-edge-litert: the one runtime that is right with every variant.

    Raises: MissingExtra, RunnerError.
    """
    runtime = find_runtime()
    if runtime.name != LITERT:
        raise MissingExtra(LITERT, extra="convert", needed_for="checking lowered stages")
    return runtime


def open_stage(model: Path, stage: SlicedStage, *, runtime: Runtime) -> LoweredStage:
    """Load one stage file, one thread, and bind its tensors.

    Raises: LoweringError when it cannot be loaded, or its tensors are not those of the stage.
    """
    try:
        interpreter = runtime.make(model, 1)
        interpreter.allocate_tensors()
        signature = interpreter.get_signature_runner(_SIGNATURE)
        given, got = signature.get_input_details(), signature.get_output_details()
    except (RuntimeError, ValueError) as error:
        raise LoweringError(f"the runtime refuses the file: {error}", stage=stage.index) from error
    return LoweredStage(
        interpreter,
        _bind(given, stage.inputs, stage.index),
        _bind(got, (*stage.following, stage.output), stage.index),
        stage.output.name,
    )


def open_chain(models: Sequence[Path], stages: Sequence[SlicedStage]) -> tuple[LoweredStage, ...]:
    """All stages of a network, open. Raises: LoweringError, MissingExtra, RunnerError."""
    runtime = litert()
    return tuple(
        open_stage(model, stage, runtime=runtime) for model, stage in zip(models, stages, strict=True)
    )


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
