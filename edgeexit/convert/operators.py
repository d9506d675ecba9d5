"""Which operator of a stage a back end gets wrong first.

Requires: a stage whose file strays from the network, and the way that file was made.
Ensures: the first operator, in the order of computing, after which lowered and float network differ; found by
lowering the stage again with what its operators give as outputs, or beginnings of it that end at one each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from edgeexit.bundle.manifest import TensorSpec
from edgeexit.convert.lowered import open_stage
from edgeexit.convert.noise import quiet_third_party
from edgeexit.convert.slicing import Arrays, SlicedStage
from edgeexit.convert.threads import one_torch_thread
from edgeexit.errors import EdgeExitError

Inputs = Mapping[str, NDArray[np.generic]]
Make = Callable[[SlicedStage, Inputs], bytes]
"""How a stage becomes a file: the back end, and the quantiser behind it."""

# More outputs than this keep everything in memory at once; a stage of a ViT-Base has 150 operators.
MOST_PROBES = 2000


@dataclass(frozen=True, slots=True)
class _Place:
    """One operator: what it gives is called `name` among the outputs of a probe."""

    node: str
    name: str
    what: str
    shape: tuple[int, ...]


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps what some of its nodes give."""

    def __init__(self, graph: fx.GraphModule, wanted: Mapping[str, str]) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self._wanted = wanted
        self.kept: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        """Run one node, and keep its result where it is wanted."""
        result: object = super().run_node(n)
        if n.name in self._wanted and isinstance(result, Tensor):
            self.kept[self._wanted[n.name]] = result
        return result


class _Probe(nn.Module):
    """A stage's graph that gives what some of its operators gave."""

    def __init__(self, graph: fx.GraphModule, places: Sequence[_Place]) -> None:
        super().__init__()
        self.flat = graph
        self._wanted = {place.node: place.name for place in places}
        for module in self.modules():
            module.training = False  # an exported module refuses eval(), and has no other behaviour
        self._order = [node.target for node in graph.graph.nodes if node.op == "placeholder"]

    def forward(self, **state: Tensor) -> dict[str, Tensor]:
        """Shapes: as the operators give."""
        recorder = _Recorder(self.flat, self._wanted)
        recorder.run(*(state[str(name)] for name in self._order))
        # A result that is also an input, or given twice, is no output of its own for some back ends.
        return {name: kept + 0.0 for name, kept in recorder.kept.items()}


def first_diverging(
    stage: SlicedStage, samples: Sequence[Inputs], make: Make, *, tolerance: float
) -> str | None:
    """The operator and its place in the network, like `aten.gelu.default in blocks.0.mlp.act`.

    None where every operator agrees on these inputs, or the back end lowers none of the beginnings.
    `tolerance` is relative to the largest absolute value of what an operator gives, where that is over 1.
    """
    hunt = _Hunt(stage, samples, make, tolerance)
    with one_torch_thread(), torch.no_grad():
        try:
            return hunt.result()
        except (EdgeExitError, RuntimeError, ValueError, TypeError, KeyError):
            # It explains a failure that is told anyway: not finding it must not hide that one.
            return None


class _Hunt:
    """One search in one stage."""

    def __init__(self, stage: SlicedStage, samples: Sequence[Inputs], make: Make, tolerance: float) -> None:
        self._stage = stage
        self._samples = samples
        self._make = make
        self._tolerance = tolerance

    def result(self) -> str | None:
        given = {
            spec.name: torch.from_numpy(np.ascontiguousarray(self._samples[0][spec.name]))
            for spec in self._stage.inputs
        }
        with quiet_third_party():
            exported = torch.export.export(self._stage.module, (), kwargs=given)
            graph = exported.module(check_guards=False)
        assert isinstance(graph, fx.GraphModule)  # what an exported program gives
        places = _places(graph)
        try:
            strays = self._strays(graph, places)
        except EdgeExitError:
            strays = []  # what it cannot lower together it may lower in parts
        # With everything kept nothing is fused, so that a fault of fusing shows in beginnings alone.
        first = strays[0] if strays else self._bisected(graph, places)
        return None if first is None else first.what

    def _bisected(self, graph: fx.GraphModule, places: Sequence[_Place]) -> _Place | None:
        """The end of the shortest beginning that strays, as far as halving finds it."""
        if not places or not self._strays(graph, places[-1:]):
            return None
        sound, strays = -1, len(places) - 1
        while strays - sound > 1:
            middle = (sound + strays) // 2
            if self._strays(graph, [places[middle]]):
                strays = middle
            else:
                sound = middle
        return places[strays]

    def _strays(self, graph: fx.GraphModule, places: Sequence[_Place]) -> list[_Place]:
        """Those of the operators whose results differ, in order, all lowered as one file."""
        probe = _Probe(graph, places)
        specs = [TensorSpec(name=place.name, shape=place.shape) for place in places]
        probed = replace(self._stage, module=probe, following=tuple(specs[:-1]), output=specs[-1])
        with tempfile.TemporaryDirectory(prefix="edgeexit-operators-") as folder:
            path = Path(folder) / "probe"
            path.write_bytes(self._make(probed, self._samples[0]))
            lowered = open_stage(path, probed)
            found: set[str] = set()
            for inputs in self._samples:
                expected, got = probed.run(inputs), lowered.run(inputs)
                found |= {name for name in expected if self._differs(name, expected, got)}
        return [place for place in places if place.name in found]

    def _differs(self, name: str, expected: Arrays, got: Arrays) -> bool:
        wanted = expected[name].astype(np.float64)
        difference = float(np.abs(got[name].astype(np.float64) - wanted).max())
        return not difference <= self._tolerance * max(1.0, float(np.abs(wanted).max()))


def _places(graph: fx.GraphModule) -> list[_Place]:
    """The operators that give one float tensor, in the order of computing."""
    found: list[_Place] = []
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        floats = isinstance(value, Tensor) and value.dtype == torch.float32 and value.dim() > 0
        if node.op == "call_function" and floats and len(found) < MOST_PROBES:
            shape = tuple(int(size) for size in value.shape)
            found.append(_Place(node.name, f"probe_{len(found)}", _described(node), shape))
    return found


def _described(node: fx.Node) -> str:
    """An operator, and the module of the network that it is in."""
    modules = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in modules.values()]
    path = paths[-1].removeprefix("L['self'].").removeprefix("stage").strip(".") if paths else ""
    return f"{node.target} in {path}" if path else str(node.target)
