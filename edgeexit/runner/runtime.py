"""Which TFLite runtime this machine has, and interpreters made by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeexit.errors import MissingExtra, RunnerError

LITERT = "ai-edge-litert"
TFLITE = "tflite-runtime"


class _Signature(Protocol):
    """What is used of a runtime's signature runner."""

    def get_input_details(self) -> Mapping[str, Mapping[str, object]]: ...

    def get_output_details(self) -> Mapping[str, Mapping[str, object]]: ...


class Interpreter(Protocol):
    """What is used of a runtime's interpreter."""

    def allocate_tensors(self) -> None:
        """Plan and take its memory."""
        ...

    def get_signature_list(self) -> Mapping[str, object]:
        """Signatures by key."""
        ...

    def get_signature_runner(self, signature_key: str) -> _Signature:
        """One signature, with the details of its tensors."""
        ...

    def get_input_details(self) -> list[Mapping[str, object]]:
        """Inputs of the main graph."""
        ...

    def set_tensor(self, tensor_index: int, value: NDArray[np.generic]) -> None:
        """Copy a value in."""
        ...

    def tensor(self, tensor_index: int) -> Callable[[], NDArray[np.generic]]:
        """Gives views of a tensor's memory; none may be alive while it runs."""
        ...

    def invoke(self) -> None:
        """Run the graph."""
        ...

    def get_tensor(self, tensor_index: int) -> NDArray[np.generic]:
        """Copy a value out."""
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """A TFLite runtime that works here: its package and version, and how it makes interpreters."""

    name: str
    version: str
    make: Callable[[Path, int], Interpreter]
    """Takes the model file and the number of threads."""


def find_runtime() -> Runtime:
    """The runtime of this machine: ai-edge-litert, else tflite-runtime.

    Raises: MissingExtra when neither is installed, RunnerError when one is, but cannot work.
    """
    litert = _litert()
    if litert is not None:
        return litert
    tflite = _tflite()
    if tflite is not None:
        return tflite
    raise MissingExtra(LITERT, extra="device", needed_for="running stages")


def _litert() -> Runtime | None:
    try:
        from ai_edge_litert.interpreter import Interpreter as LiteRT
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "ai_edge_litert":
            return None
        raise _broken(LITERT, error) from error
    except ImportError as error:  # a shared library that this system lacks
        raise _broken(LITERT, error) from error

    def make(model: Path, threads: int) -> Interpreter:
        made: Interpreter = LiteRT(model_path=str(model), num_threads=threads)
        return made

    return Runtime(LITERT, _version(LITERT), make)


def _tflite() -> Runtime | None:
    installed = _version(TFLITE, absent="")
    if not installed:
        return None
    if int(np.__version__.partition(".")[0]) >= 2:
        # 2.14 was built against numpy 1: it imports beside numpy 2, then dies with the first interpreter.
        raise RunnerError(
            f"{TFLITE} {installed} cannot work here",
            why=f"numpy {np.__version__} is installed, and it needs numpy below 2",
            fix=f"pip install {LITERT}, or where there is none for this system: pip install 'numpy<2'",
        )
    try:
        from tflite_runtime.interpreter import Interpreter as TFLite
    except ImportError as error:
        raise _broken(TFLITE, error) from error

    def make(model: Path, threads: int) -> Interpreter:
        made: Interpreter = TFLite(model_path=str(model), num_threads=threads)
        return made

    return Runtime(TFLITE, installed, make)


def _version(package: str, *, absent: str = "unknown") -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return absent


def _broken(package: str, error: ImportError) -> RunnerError:
    return RunnerError(
        f"{package} is installed but cannot be imported", why=str(error), fix=f"reinstall {package}"
    )
