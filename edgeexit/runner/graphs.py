"""Stages that are graphs of one interpreter, run one by one.

An interpreter's public way to its graphs, the runner of a signature, plans memory and copies every output
with every call; what that runner calls itself does neither. It is no public interface: whoever uses it holds
what comes out against what the public one gives, and does without where it is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, cast
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Variant
from edgeexit.errors import RunnerError
from edgeexit.runner.litert import run_error
from edgeexit.runner.preprocess import ImageTensors
from edgeexit.runner.protocol import StageOutput, Tensor, Tensors
from edgeexit.runner.runtime import Interpreter


class _Inner(Protocol):
    """What ai-edge-litert's interpreter wraps; names are its own."""

    def AllocateTensors(self, subgraph_index: int, /) -> object: ...  # noqa: N802

    def SetTensor(self, i: int, value: NDArray[np.generic], subgraph_index: int, /) -> object: ...  # noqa: N802

    def Invoke(self, subgraph_index: int, /) -> object: ...  # noqa: N802

    def GetTensor(self, tensor_index: int, subgraph_index: int, /) -> NDArray[np.generic]: ...  # noqa: N802

    def tensor(self, owner: object, tensor_index: int, subgraph_index: int, /) -> NDArray[np.generic]: ...


class GraphTensors(Mapping[str, Tensor]):
    """What a graph gave, left in its memory until it runs again: copies are made when asked for.

    The next stage takes tensors from where they lie, and only who sends or keeps them needs them elsewhere.
    """

    __slots__ = ("__weakref__", "_graph", "_indices", "_inner", "_kept")

    def __init__(self, inner: _Inner, graph: int, indices: Mapping[str, int]) -> None:
        self._inner = inner
        self._graph = graph
        self._indices = indices
        self._kept: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        kept = self._kept.get(name)
        if kept is None:
            kept = self._kept[name] = self._inner.GetTensor(self._indices[name], self._graph)
        return kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def view(self, name: str) -> Tensor:
        """One of them for a moment, which ends before any graph runs. Raises: KeyError."""
        kept = self._kept.get(name)
        return self._inner.tensor(self._inner, self._indices[name], self._graph) if kept is None else kept

    def keep(self) -> None:
        """Copy all of them: the graph is about to run again."""
        for name in self._indices:
            self[name]


class GraphStage:
    """One stage in one variant, which is one graph of an interpreter that it shares with others."""

    __slots__ = (
        "_boundary",
        "_exit",
        "_get",
        "_given",
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
        self._get = cast("Callable[[int, int], NDArray[np.float32]]", inner.GetTensor)
        self._graph = graph
        self._inputs = tuple(inputs)
        self._boundary = dict(boundary)
        self._exit = exit_index
        self._given: ref[GraphTensors] | None = None

    def run(self, tensors: Tensors) -> StageOutput:
        """Run the stage; what it gives stays as it is, whatever runs next. Raises: RunnerError."""
        graph = self._graph
        # Nobody holds what the last frame left here, as a rule.
        given = None if self._given is None else self._given()
        try:
            if given is not None:
                given.keep()
            for name, index in self._inputs:
                if type(tensors) is GraphTensors:
                    self._set(index, tensors.view(name), graph)
                elif type(tensors) is ImageTensors:
                    tensors.write(name, self._inner.tensor(self._inner, index, graph))
                else:
                    tensor = tensors[name]
                    if not tensor.dtype.isnative:  # the runtime would read its bytes the wrong way round
                        tensor = tensor.astype(tensor.dtype.newbyteorder("="))
                    self._set(index, tensor, graph)
            self._invoke(graph)
            output = self._get(self._exit, graph)
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise run_error(self.stage, error) from error
        boundary: Tensors = {}
        if self._boundary:
            boundary = GraphTensors(self._inner, graph, self._boundary)
            self._given = ref(boundary)
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
