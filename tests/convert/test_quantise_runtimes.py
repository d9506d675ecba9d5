"""Which runtimes may load each variant: what is silently wrong on one is never marked for it."""

from __future__ import annotations

from typing import get_args

import pytest

from edgeexit.convert.plan import VariantName
from edgeexit.convert.quantise import ONNX_VARIANTS, precision_of, runtimes
from edgeexit.runner.onnx import ONNX_RUNTIME
from edgeexit.runner.runtime import LITERT, TFLITE


@pytest.mark.parametrize("name", get_args(VariantName))
def test_every_variant_is_marked(name: VariantName) -> None:
    if name in ONNX_VARIANTS:
        assert runtimes(name, "onnx") == (ONNX_RUNTIME,)
        return
    marked = runtimes(name, "tflite")
    assert LITERT in marked
    assert ONNX_RUNTIME not in marked
    # A scale for each channel, activations quantised as they come: 11 % of answers were right there.
    assert (TFLITE in marked) == (name != "int8")
    assert precision_of(name) in ("f32", "f16", "int8")
