"""Graphs of one interpreter, run one by one.

An interpreter's public way to its graphs, the runner of a signature, plans memory and copies every output
with every call; what that runner calls itself does neither. It is no public interface: whoever uses it holds
what comes out against what the public one gives, and does without where it is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edgeexit.errors import RunnerError
from edgeexit.runner.runtime import Interpreter


class _Inner(Protocol):
    """What ai-edge-litert's interpreter wraps; names are its own."""

    def AllocateTensors(self, subgraph_index: int) -> object: ...  # noqa: N802

    def SetTensor(self, i: int, value: NDArray[np.generic], subgraph_index: int) -> object: ...  # noqa: N802

    def tensor(self, base_object: object, tensor_index: int, subgraph_index: int) -> NDArray[np.generic]: ...

    def Invoke(self, subgraph_index: int) -> object: ...  # noqa: N802

    def GetTensor(self, tensor_index: int, subgraph_index: int) -> NDArray[np.generic]: ...  # noqa: N802


class OneGraph:
    """One graph of an interpreter that may have several. Raises, once opened: ValueError, RuntimeError."""

    __slots__ = ("_index", "_inner")

    def __init__(self, inner: _Inner, index: int) -> None:
        self._inner = inner
        self._index = index

    def set_tensor(self, tensor_index: int, value: NDArray[np.generic]) -> None:
        """Copy a value in."""
        self._inner.SetTensor(tensor_index, value, self._index)

    def tensor(self, tensor_index: int) -> Callable[[], NDArray[np.generic]]:
        """Gives views of a tensor's memory; none may be alive while the graph runs."""
        return lambda: self._inner.tensor(self._inner, tensor_index, self._index)

    def invoke(self) -> None:
        """Run the graph."""
        self._inner.Invoke(self._index)

    def get_tensor(self, tensor_index: int) -> NDArray[np.generic]:
        """Copy a value out."""
        return self._inner.GetTensor(tensor_index, self._index)


def graphs_of(interpreter: Interpreter, count: int) -> list[OneGraph]:
    """The first graphs of an interpreter, ready to run. Shapes: result (count,).

    Raises: RunnerError where this version of the runtime does not let them be run.
    """
    inner = cast("_Inner | None", getattr(interpreter, "_interpreter", None))
    try:
        if inner is None:
            raise TypeError("it has no inner interpreter")
        for index in range(count):
            inner.AllocateTensors(index)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise RunnerError("graphs of one file cannot be run one by one", why=str(error)) from error
    return [OneGraph(inner, index) for index in range(count)]
