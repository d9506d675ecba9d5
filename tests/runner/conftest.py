"""A runtime whose interpreters can be made wrong or slow, over the real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Variant
from edgeexit.runner.runtime import Interpreter, Runtime, find_runtime

Tensor = NDArray[np.float32]
Distort = Callable[[Tensor, Tensor], Tensor]
"""Takes what the model said and what it was given."""


@dataclass(slots=True)
class Bench:
    """A made-up clock, and what is wrong with each model file."""

    now_ms: float = 0.0
    invoke_ms: dict[str, float] = field(default_factory=dict)
    distort: dict[str, Distort] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    made: list[str] = field(default_factory=list)
    name: str = "ai-edge-litert"
    version: str = "2.3.0"

    def clock(self) -> float:
        return self.now_ms

    def slow(self, variant: Variant, ms: float) -> None:
        self.invoke_ms[Path(variant.blob.file).name] = ms

    def wrong(self, variant: Variant, distort: Distort) -> None:
        self.distort[Path(variant.blob.file).name] = distort

    def unloadable(self, variant: Variant) -> None:
        self.broken.add(Path(variant.blob.file).name)

    def runtime(self) -> Runtime:
        real = find_runtime()

        def make(model: Path, threads: int) -> Interpreter:
            if model.name in self.broken:
                raise ValueError("Didn't find op for builtin opcode")
            self.made.append(model.name)
            return BenchInterpreter(self, model.name, real.make(model, threads))

        return Runtime(self.name, self.version, make)


class BenchInterpreter:
    """The real interpreter of one file, its answers distorted and its time made up."""

    def __init__(self, bench: Bench, file: str, real: Interpreter) -> None:
        self._bench = bench
        self._file = file
        self._real = real
        self._given = np.zeros(1, np.float32)

    def allocate_tensors(self) -> None:
        self._real.allocate_tensors()

    def get_signature_list(self) -> Mapping[str, object]:
        return self._real.get_signature_list()

    def get_signature_runner(self, signature_key: str) -> Signature:
        return Signature(self._real, signature_key)

    def get_input_details(self) -> list[Mapping[str, object]]:
        return self._real.get_input_details()

    def set_tensor(self, tensor_index: int, value: NDArray[np.generic]) -> None:
        self._given = value.astype(np.float32)
        self._real.set_tensor(tensor_index, value)

    def tensor(self, tensor_index: int) -> Callable[[], NDArray[np.generic]]:
        return self._real.tensor(tensor_index)

    def invoke(self) -> None:
        self._bench.now_ms += self._bench.invoke_ms.get(self._file, 1.0)
        self._real.invoke()

    def get_tensor(self, tensor_index: int) -> NDArray[np.generic]:
        value = self._real.get_tensor(tensor_index).astype(np.float32)
        distort = self._bench.distort.get(self._file)
        return value if distort is None else distort(value, self._given)


class Signature:
    def __init__(self, real: Interpreter, key: str) -> None:
        self._runner = real.get_signature_runner(key)

    def get_input_details(self) -> Mapping[str, Mapping[str, object]]:
        return self._runner.get_input_details()

    def get_output_details(self) -> Mapping[str, Mapping[str, object]]:
        return self._runner.get_output_details()


@pytest.fixture
def bench() -> Bench:
    return Bench()
