"""Step 2: lower each stage to a model file, by one of several back ends.

Requires: a sliced stage and the real tensors of its boundary.
Ensures: one f32 file whose inputs and outputs carry the names of the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeexit.convert.noise import quiet_third_party
from edgeexit.convert.slicing import SlicedStage
from edgeexit.errors import ConfigError, LoweringError, MissingExtra

LoweringName = Literal["litert-torch", "onnx2tf", "onnx"]
"""The back ends: TFLite straight from torch, TFLite by way of ONNX, and ONNX itself."""


class Lowering(Protocol):
    """Port: a back end that turns a torch stage into a model file, TFLite or ONNX."""

    @property
    def tools(self) -> tuple[str, ...]:
        """Names and versions that decide what comes out."""
        ...

    def lower(self, stage: SlicedStage, tensors: Mapping[str, NDArray[np.generic]]) -> bytes:
        """The f32 file of one stage. Raises: LoweringError, MissingExtra."""
        ...


def lowering(name: LoweringName) -> Lowering:
    """The back end of this name; what it needs is looked for when it is used.

    Raises: ConfigError.
    """
    if name == "litert-torch":
        return LiteRTTorch()
    if name == "onnx":
        from edgeexit.convert.onnx_export import Onnx

        return Onnx()
    if name == "onnx2tf":
        from edgeexit.convert.onnx2tf import Onnx2tf

        return Onnx2tf()
    raise ConfigError(
        f"there is no back end {name!r}", key="lowering", why=f"known: {', '.join(get_args(LoweringName))}"
    )


class LiteRTTorch:
    """litert-torch: straight from torch.export to TFLite, one XNNPACK partition a stage."""

    @property
    def tools(self) -> tuple[str, ...]:
        """litert-torch, its compiler, and torch."""
        return tuple(f"{name} {version(name)}" for name in ("torch", "litert-torch", "litert-converter"))

    def lower(self, stage: SlicedStage, tensors: Mapping[str, NDArray[np.generic]]) -> bytes:
        """The f32 file of one stage. Raises: LoweringError, MissingExtra."""
        return lower_module(
            stage.module, {spec.name: tensors[spec.name] for spec in stage.inputs}, stage.index
        )


def lower_module(module: nn.Module, tensors: Mapping[str, NDArray[np.generic]], index: int) -> bytes:
    """A TFLite file of a module with named arguments that returns a dict of named outputs.

    Raises: LoweringError naming stage `index`, MissingExtra.
    """
    given = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()}
    with quiet_third_party():
        try:
            import litert_torch
        except ImportError as error:
            raise MissingExtra("litert-torch", extra="convert", needed_for="lowering a stage") from error
        try:
            # torch.export, functorch and MLIR each raise errors of their own kind; all of them mean the
            # same here, and the cause stays attached.
            return bytes(litert_torch.convert(module, sample_kwargs=given).model_content())
        except Exception as error:
            raise LoweringError(first_line(error), stage=index) from error


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
