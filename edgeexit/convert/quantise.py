"""Step 4: smaller variants of a lowered stage.

Requires: an f32 TFLite file.
Ensures: a file of the same inputs and outputs, float32 at both ends, its weights stored smaller.
"""

from __future__ import annotations

import contextlib
import io
from importlib.metadata import version

from edgeexit.bundle.manifest import Precision
from edgeexit.convert.noise import quiet_third_party
from edgeexit.errors import LoweringError, MissingExtra
from edgeexit.runner.runtime import LITERT, TFLITE


def runtimes(precision: Precision) -> tuple[str, ...]:
    """The runtimes that may load a variant.

    tflite-runtime 2.14 answers garbage, without an error, to int8 weights quantised per channel with
    activations quantised on the fly (11 % agreement measured).
    """
    return (LITERT,) if precision == "int8" else (LITERT, TFLITE)


def quantiser_tools() -> tuple[str, ...]:
    """Names and versions that decide what comes out."""
    return (f"ai-edge-quantizer {version('ai-edge-quantizer')}",)


def quantise(model: bytes, precision: Precision, *, stage: int) -> bytes:
    """The file in another precision: f16 weights, or int8 weights per channel (dynamic range).

    Raises: LoweringError, MissingExtra.
    """
    if precision == "f32":
        return model
    with quiet_third_party():
        try:
            from ai_edge_quantizer import qtyping, quantizer, recipe
        except ImportError as error:
            raise MissingExtra(
                "ai-edge-quantizer", extra="convert", needed_for="quantising a stage"
            ) from error
        try:
            work = quantizer.Quantizer(bytearray(model))
            if precision == "int8":
                work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
            else:
                work.add_weight_only_config(
                    ".*",
                    qtyping.TFLOperationName.ALL_SUPPORTED,
                    num_bits=16,
                    algorithm_key=quantizer.AlgorithmName.FLOAT_CASTING,
                )
            # It prints sizes and draws progress bars over whatever the terminal shows.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                quantised = work.quantize().quantized_model
        except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise LoweringError(f"quantising to {precision}: {error}", stage=stage) from error
    if not quantised:
        raise LoweringError(f"quantising to {precision} gave nothing", stage=stage)
    return bytes(quantised)
