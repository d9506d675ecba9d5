"""Step 4: smaller variants of a lowered stage.

Requires: an f32 TFLite file.
Ensures: a file of the same inputs and outputs, float32 at both ends, its weights stored in fewer bits.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from edgeexit.bundle.manifest import Precision
from edgeexit.convert.noise import quiet_third_party
from edgeexit.convert.plan import VariantName
from edgeexit.errors import LoweringError, MissingExtra
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
}


def precision_of(name: VariantName) -> Precision:
    """What the weights of a variant are stored as."""
    return _PRECISIONS[name]


def runtimes(name: VariantName) -> tuple[str, ...]:
    """The runtimes that may load a variant.

    tflite-runtime 2.14 answers garbage, without an error, to int8 weights quantised per channel with
    activations quantised on the fly (11 % agreement measured). It answered rightly to one scale a tensor,
    and to activations whose ranges were calibrated, where fully connected layers alone are quantised.
    """
    return (LITERT,) if name == "int8" else (LITERT, TFLITE)


def quantiser_tools() -> tuple[str, ...]:
    """Names and versions that decide what comes out."""
    return (f"ai-edge-quantizer {version('ai-edge-quantizer')}",)


def quantise(
    model: bytes, name: VariantName, *, stage: int, inputs: Sequence[Mapping[str, NDArray[np.generic]]] = ()
) -> bytes:
    """The file as another variant; it takes and gives float32 all the same.

    f16          weights of 16 bits
    int8         weights of 8 bits with a scale for each channel; activations are quantised as they come
    int8-tensor  the same with one scale a tensor, fully connected layers only
    int8-static  as int8, fully connected layers only, activations in the ranges that `inputs` have shown
    Quantising the activations of every operator is left out: it was no faster, and 6 in 100
    answers more differed from the float network's.

    `inputs` are the stage's inputs on real images; only int8-static needs them.
    Raises: LoweringError, MissingExtra.
    """
    if name == "f32":
        return model
    with quiet_third_party():
        try:
            from ai_edge_quantizer import qtyping, quantizer, recipe
        except ImportError as error:
            raise MissingExtra(
                "ai-edge-quantizer", extra="convert", needed_for="quantising a stage"
            ) from error
        dense = qtyping.TFLOperationName.FULLY_CONNECTED
        try:
            work = quantizer.Quantizer(bytearray(model))
            ranges = None
            # It prints sizes and draws progress bars over whatever the terminal shows.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                if name == "int8":
                    work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
                elif name == "int8-tensor":
                    tensorwise = qtyping.QuantGranularity.TENSORWISE
                    work.add_dynamic_config(".*", dense, num_bits=8, granularity=tensorwise)
                elif name == "int8-static":
                    work.add_static_config(".*", dense, activation_num_bits=8, weight_num_bits=8)
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
                quantised = work.quantize(ranges).quantized_model
        except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise LoweringError(f"quantising to {name}: {error}", stage=stage) from error
    if not quantised:
        raise LoweringError(f"quantising to {name} gave nothing", stage=stage)
    return bytes(quantised)


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
