"""Step 1: cut a network at its exits into stages with named inputs and outputs.

Requires: a network that keeps the MultiExitNetwork protocol, and one real input.
Ensures: each stage runs alone on the tensors of its boundary; what stage k gives is what stage k+1
takes; all shapes are known.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgeexit.bundle.manifest import DType, Task, TensorSpec
from edgeexit.errors import UnsupportedModel
from edgeexit.models.protocol import IMAGE, MultiExitNetwork

# What an exit's output is called, in every stage file and in the manifest.
OUTPUT_NAMES: dict[Task, str] = {"classification": "logits", "regression": "value_spread"}

_DTYPES: dict[torch.dtype, DType] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.int32: "int32",
}

Arrays = dict[str, NDArray[np.generic]]


class StageModule(nn.Module):
    """One stage with named arguments and one dict of named outputs, as converters want it."""

    def __init__(self, stage: nn.Module, output_name: str) -> None:
        super().__init__()
        self.stage = stage
        self.output_name = output_name

    # The argument names are the tensor names of this boundary, so they are data, not code.
    def forward(self, **state: Tensor) -> dict[str, Tensor]:
        """The next boundary's tensors, and the exit's output beside them."""
        following, output = self.stage(state)
        return {**following, self.output_name: output}


@dataclass(frozen=True, slots=True)
class SlicedStage:
    """A stage that stands alone. `following` are the tensors of the next boundary; macs, multiply-adds."""

    index: int
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    following: tuple[TensorSpec, ...]
    output: TensorSpec
    parameters: int
    macs: int

    def run(self, tensors: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """The float reference: every output by name. Raises: nothing of its own."""
        with torch.no_grad():
            given = {
                spec.name: torch.from_numpy(np.ascontiguousarray(tensors[spec.name])) for spec in self.inputs
            }
            outputs: dict[str, Tensor] = self.module(**given)
        return {name: tensor.numpy() for name, tensor in outputs.items()}


def slice_network(
    network: MultiExitNetwork, image: NDArray[np.float32], *, task: Task, classes: int
) -> tuple[SlicedStage, ...]:
    """The stages of a copy of the network, in evaluation mode; the network itself is left as it was.

    Shapes: image (1, C, H, W). `classes` is how many logits an exit gives, or 2 for value and spread.
    Raises: UnsupportedModel.
    """
    modules = getattr(network, "stages", None)
    if not isinstance(modules, nn.ModuleList) or len(modules) == 0:
        raise UnsupportedModel(
            f"{type(network).__name__} has no stages", expected="a non-empty nn.ModuleList named `stages`"
        )
    # The copy keeps a caller's training mode, device and gradients out of this, and this out of them.
    stages = copy.deepcopy(modules).cpu().eval()
    output_name = OUTPUT_NAMES[task]
    state: dict[str, Tensor] = {IMAGE: torch.from_numpy(image)}
    sliced: list[SlicedStage] = []
    for index, stage in enumerate(stages):
        following, output = _run(index, stage, state)
        if tuple(output.shape) != (1, classes):
            raise UnsupportedModel(
                f"exit {index} gives {list(output.shape)}", expected=f"an output of [1, {classes}]"
            )
        if output_name in following:
            raise UnsupportedModel(
                f"stage {index} names a state tensor {output_name!r}", expected="another name for it"
            )
        sliced.append(
            SlicedStage(
                index=index,
                module=StageModule(stage, output_name).eval(),
                inputs=_specs(index, state),
                following=_specs(index, following),
                output=_spec(index, output_name, output),
                parameters=sum(parameter.numel() for parameter in stage.parameters()),
                macs=_macs(stage, state),
            )
        )
        state = following
        if not state and index < len(stages) - 1:
            raise UnsupportedModel(
                f"stage {index} gives no state",
                expected="named tensors for the next stage, last stage excepted",
            )
    if state:
        raise UnsupportedModel(
            f"the last stage gives a state of {sorted(state)}", expected="an empty state from the last stage"
        )
    return tuple(sliced)


def _run(index: int, stage: nn.Module, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """One stage on one real state, its result checked against the protocol."""
    with torch.no_grad():
        try:
            result = stage(dict(state))
        except (RuntimeError, TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
            raise UnsupportedModel(
                f"stage {index} cannot run on {sorted(state)}",
                expected=f"a stage that takes these tensors; it raised {type(error).__name__}: {error}",
            ) from error
    expected = "a pair of (dict of named tensors, exit output)"
    if not isinstance(result, tuple) or len(result) != 2:
        raise UnsupportedModel(f"stage {index} returned {type(result).__name__}", expected=expected)
    following, output = result
    named = isinstance(following, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in following.items()
    )
    if not named or not isinstance(output, Tensor):
        raise UnsupportedModel(
            f"stage {index} returned ({type(following).__name__}, {type(output).__name__})", expected=expected
        )
    return following, output


def _specs(index: int, state: Mapping[str, Tensor]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(index, name, tensor) for name, tensor in state.items())


def _spec(index: int, name: str, tensor: Tensor) -> TensorSpec:
    if not name.isidentifier():
        raise UnsupportedModel(f"stage {index} names a tensor {name!r}", expected="a name like `tokens`")
    if tensor.dtype not in _DTYPES:
        raise UnsupportedModel(
            f"stage {index}: {name} is {tensor.dtype}", expected=f"one of {', '.join(_DTYPES.values())}"
        )
    if tensor.dim() == 0 or tensor.shape[0] != 1:
        raise UnsupportedModel(
            f"stage {index}: {name} has shape {list(tensor.shape)}", expected="a batch of 1 in front"
        )
    return TensorSpec(name=name, shape=tuple(tensor.shape), dtype=_DTYPES[tensor.dtype])


def _macs(stage: nn.Module, state: Mapping[str, Tensor]) -> int:
    """Multiply-adds of one stage on one input: matrix products and convolutions, biases not counted.

    Fused attention kernels are not counted by torch, so they are turned off meanwhile.
    """
    counter = FlopCounterMode(display=False)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            stage(dict(state))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    # torch counts a multiply and an add as two operations.
    return int(counter.get_total_flops()) // 2
