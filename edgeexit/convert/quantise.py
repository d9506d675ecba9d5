"""Step 4: smaller variants of a lowered stage, and what may load each of them.

Requires: an f32 file, TFLite or ONNX.
Ensures: a file of the same inputs and outputs, float32 at both ends, its weights stored in fewer bits.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Format, Precision
from edgeexit.convert.lowered import format_of
from edgeexit.convert.noise import quiet_third_party
from edgeexit.convert.plan import VariantName
from edgeexit.convert.quantise_onnx import quantise_onnx
from edgeexit.errors import LoweringError, MissingExtra
from edgeexit.runner.onnx import ONNX_RUNTIME
from edgeexit.runner.runtime import LITERT, TFLITE

_Limit = NDArray[np.float32]

# What litert-torch calls the one signature of a file.
_SIGNATURE = "serving_default"

_PRECISIONS: dict[VariantName, Precision] = {
    "f32": "f32",
    "f16": "f16",
    "int8": "int8",
    "int8-tensor": "int8",
    "int8-static": "int8",
    "int8-full": "int8",
    "onnx": "f32",
    "onnx-int8": "int8",
}

ONNX_VARIANTS: frozenset[VariantName] = frozenset(("onnx", "onnx-int8"))
"""Those that are ONNX files whatever the back end lowers to."""


def precision_of(name: VariantName) -> Precision:
    """What the weights of a variant are stored as."""
    return _PRECISIONS[name]


def runtimes(name: VariantName, format_: Format) -> tuple[str, ...]:
    """The runtimes that may load a variant.

    tflite-runtime 2.14 answers garbage, without an error, to int8 weights quantised per channel with
    activations quantised on the fly (11 % agreement measured). It answered rightly to one scale a tensor,
    and to activations whose ranges were calibrated.
    """
    if format_ == "onnx":
        return (ONNX_RUNTIME,)
    return (LITERT,) if name == "int8" else (LITERT, TFLITE)


def quantiser_tools(variants: Sequence[VariantName] = ()) -> tuple[str, ...]:
    """Names and versions that decide what comes out."""
    # ONNX variants are exported beside whatever the back end lowers to.
    beside = ("onnx", "onnxscript", ONNX_RUNTIME) if ONNX_VARIANTS.intersection(variants) else ()
    return tuple(f"{name} {version(name)}" for name in ("ai-edge-quantizer", *beside))


def quantise(
    model: bytes, name: VariantName, *, stage: int, inputs: Sequence[Mapping[str, NDArray[np.generic]]] = ()
) -> bytes:
    """The file as another variant; it takes and gives float32 all the same.

    f16          weights of 16 bits
    int8         weights of 8 bits with a scale for each channel; activations are quantised as they come;
                 depthwise convolutions stay as they are
    int8-tensor  the same with one scale a tensor, fully connected layers only
    int8-static  as int8, fully connected layers only, activations in the ranges that `inputs` have shown
    int8-full    the same for every operator: for accelerators of whole numbers; on processors it was no
                 faster, and 6 in 100 answers more differed from the float network's
    Of an ONNX file, f32 and int8 can be made, under the names of onnx and onnx-int8 as well.

    `inputs` are the stage's inputs on real images; int8-static and int8-full need them.
    Raises: LoweringError, MissingExtra.
    """
    if name in ("f32", "onnx"):
        return model
    if format_of(model) == "onnx":
        if name not in ("int8", "onnx-int8"):
            raise LoweringError(f"an ONNX file has no variant {name}: f32 or int8", stage=stage)
        return quantise_onnx(model, stage=stage)
    with quiet_third_party():
        try:
            from ai_edge_quantizer import qtyping, quantizer, recipe
        except ImportError as error:
            raise MissingExtra(
                "ai-edge-quantizer", extra="convert", needed_for="quantising a stage"
            ) from error
        dense = qtyping.TFLOperationName.FULLY_CONNECTED
        as_is = quantizer.AlgorithmName.NO_QUANTIZE
        try:
            work = quantizer.Quantizer(bytearray(model))
            ranges = None
            # It prints sizes and draws progress bars over whatever the terminal shows.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                if name == "int8":
                    work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
                    # XNNPACK has no depthwise convolution that quantises as it goes: LiteRT's own is several
                    # times slower than the float one, and cuts the stage in two there. Patches of one-channel
                    # images are such a convolution; its weights are few.
                    depthwise = qtyping.TFLOperationName.DEPTHWISE_CONV_2D
                    work.update_quantization_recipe(".*", depthwise, algorithm_key=as_is)
                elif name == "int8-tensor":
                    tensorwise = qtyping.QuantGranularity.TENSORWISE
                    work.add_dynamic_config(".*", dense, num_bits=8, granularity=tensorwise)
                elif name in ("int8-static", "int8-full"):
                    every = qtyping.TFLOperationName.ALL_SUPPORTED
                    quantised = dense if name == "int8-static" else every
                    work.add_static_config(".*", quantised, activation_num_bits=8, weight_num_bits=8)
                    # Stages take and give floats, so that variants can be mixed.
                    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
                        work.update_quantization_recipe(".*", end, algorithm_key=as_is)
                    # Shown all at once, ranges would be a moving average in which the first image weighs
                    # most, and what exceeds it is cut off: exits were wrong by a quarter of their size.
                    seen = [work.calibrate({_SIGNATURE: [dict(each)]}, num_threads=1) for each in inputs]
                    ranges = _whole_ranges(seen)
                else:
                    work.add_weight_only_config(
                        ".*",
                        qtyping.TFLOperationName.ALL_SUPPORTED,
                        num_bits=16,
                        algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING,
                    )
                made = work.quantize(ranges).quantized_model
        except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise LoweringError(f"quantising to {name}: {error}", stage=stage) from error
    if not made:
        raise LoweringError(f"quantising to {name} gave nothing", stage=stage)
    return bytes(made)


def _whole_ranges(seen: Sequence[Mapping[str, Mapping[str, _Limit]]]) -> dict[str, dict[str, _Limit]]:
    """The range that every tensor had over all images."""
    whole: dict[str, dict[str, _Limit]] = {}
    for name in dict.fromkeys(name for tensors in seen for name in tensors):
        ranges = [tensors[name] for tensors in seen if "min" in tensors.get(name, {})]
        if ranges:
            whole[name] = {
                "min": np.min([limits["min"] for limits in ranges], axis=0),
                "max": np.max([limits["max"] for limits in ranges], axis=0),
            }
    return whole
