"""Stages that are graphs of one interpreter, run one by one.

An interpreter's public way to its graphs, the runner of a signature, plans memory and copies every output
with every call; what that runner calls itself does neither. It is no public interface: whoever uses it holds
what comes out against what the public one gives, and does without where it is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Variant
from edgeexit.errors import RunnerError
from edgeexit.runner.litert import run_error
from edgeexit.runner.preprocess import ImageTensors
from edgeexit.runner.protocol import StageOutput, Tensors
from edgeexit.runner.runtime import Interpreter


class _Inner(Protocol):
    """What ai-edge-litert's interpreter wraps; names are its own."""

    def AllocateTensors(self, subgraph_index: int, /) -> object: ...  # noqa: N802

    def SetTensor(self, i: int, value: NDArray[np.generic], subgraph_index: int, /) -> object: ...  # noqa: N802

    def Invoke(self, subgraph_index: int, /) -> object: ...  # noqa: N802

    def GetTensor(self, tensor_index: int, subgraph_index: int, /) -> NDArray[np.generic]: ...  # noqa: N802

    def tensor(self, owner: object, tensor_index: int, subgraph_index: int, /) -> NDArray[np.generic]: ...


class GraphStage:
    """One stage in one variant, which is one graph of an interpreter that it shares with others."""

    __slots__ = (
        "_boundary",
        "_exit",
        "_get",
        "_graph",
        "_inner",
        "_inputs",
        "_invoke",
        "_set",
        "stage",
        "variant",
    )

    def __init__(
        self,
        *,
        stage: int,
        variant: Variant,
        inner: _Inner,
        graph: int,
        inputs: Sequence[tuple[str, int]],
        boundary: Sequence[tuple[str, int]],
        exit_index: int,
    ) -> None:
        self.stage = stage
        self.variant = variant
        self._inner = inner
        # Held here, and called without a line of Python between: after a stage each look-up and each call
        # costs what a hundred do in a loop.
        self._set = inner.SetTensor
        self._invoke = inner.Invoke
        self._get = inner.GetTensor
        self._graph = graph
        self._inputs = tuple(inputs)
        self._boundary = tuple(boundary)
        self._exit = exit_index

    def run(self, tensors: Tensors) -> StageOutput:
        """Run the stage; what it gives are copies. Raises: RunnerError."""
        graph, get = self._graph, self._get
        try:
            for name, index in self._inputs:
                if type(tensors) is ImageTensors:
                    tensors.write(name, self._inner.tensor(self._inner, index, graph))
                    continue
                tensor = tensors[name]
                if not tensor.dtype.isnative:  # the runtime would read its bytes the wrong way round
                    tensor = tensor.astype(tensor.dtype.newbyteorder("="))
                self._set(index, tensor, graph)
            self._invoke(graph)
            boundary = {}
            for name, index in self._boundary:
                boundary[name] = get(index, graph)
            output = cast("NDArray[np.float32]", get(self._exit, graph))
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise run_error(self.stage, error) from error
        return StageOutput(boundary, output[0])  # (1, C) -> (C,)


def inner_of(interpreter: Interpreter, graphs: int) -> _Inner:
    """The inside of an interpreter whose first `graphs` graphs are ready to run.

    Raises: RunnerError where this version of the runtime does not let them be run.
    """
    inner = cast("_Inner | None", getattr(interpreter, "_interpreter", None))
    try:
        if inner is None:
            raise TypeError("it has no inner interpreter")
        for index in range(graphs):
            inner.AllocateTensors(index)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise RunnerError("graphs of one file cannot be run one by one", why=str(error)) from error
    return inner
