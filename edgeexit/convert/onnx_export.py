"""A stage as an ONNX file: what ONNX Runtime runs, and what onnx2tf takes.

Requires: a module with named arguments that returns a dict of named outputs.
Ensures: one file with static shapes, standard operators alone, its weights inside.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeexit.bundle.onnx import output_name
from edgeexit.convert.lowering import first_line
from edgeexit.convert.noise import quiet_third_party
from edgeexit.convert.slicing import SlicedStage
from edgeexit.errors import LoweringError, MissingExtra

# The first with GELU as one operator; 18 takes it apart, and what comes out is slower everywhere.
OPSET = 20


class Onnx:
    """torch.onnx: a stage as ONNX, for ONNX Runtime on gateways and boards with a GPU."""

    @property
    def tools(self) -> tuple[str, ...]:
        """torch, whose exporter it is, and what that writes with."""
        return tuple(f"{name} {version(name)}" for name in ("torch", "onnxscript", "onnx"))

    def lower(self, stage: SlicedStage, tensors: Mapping[str, NDArray[np.generic]]) -> bytes:
        """The f32 file of one stage. Raises: LoweringError, MissingExtra."""
        specs = (*stage.following, stage.output)
        return export_module(
            stage.module,
            {spec.name: tensors[spec.name] for spec in stage.inputs},
            inputs=[spec.name for spec in stage.inputs],
            outputs={spec.name: output_name(spec.name) for spec in specs},
            index=stage.index,
        )


def export_module(
    module: nn.Module,
    tensors: Mapping[str, NDArray[np.generic]],
    *,
    inputs: Sequence[str],
    outputs: Mapping[str, str],
    index: int,
) -> bytes:
    """An ONNX file of a module with named arguments that returns a dict of named outputs.

    `inputs` are the names in the file, in the order of `tensors`; `outputs` says what each output of the
    module is called there: an ONNX graph cannot give a tensor of the name of one that it takes.
    Raises: LoweringError naming stage `index`, MissingExtra.
    """
    given = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()}
    with torch.no_grad():
        order = [outputs[name] for name in module(**given)]
    with quiet_third_party():
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise MissingExtra("onnxscript", extra="convert", needed_for="exporting to ONNX") from error
        try:
            # It prints its progress over whatever the terminal shows.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                program = torch.onnx.export(
                    module,
                    (),
                    kwargs=given,
                    dynamo=True,
                    opset_version=OPSET,
                    input_names=list(inputs),
                    output_names=order,
                    verbose=False,
                )
            if program is None:
                raise LoweringError("torch.onnx gave nothing", stage=index)
            model = program.model_proto
            # What the exporter noted of its own making: paths of this machine and lines of source.
            for node in model.graph.node:
                del node.metadata_props[:]
                node.doc_string = ""
            for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
                del value.metadata_props[:]
            del model.graph.metadata_props[:]
            del model.metadata_props[:]
            return bytes(model.SerializeToString(deterministic=True))
        except LoweringError:
            raise
        except Exception as error:
            raise LoweringError(first_line(error), stage=index) from error
