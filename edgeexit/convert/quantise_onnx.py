"""Step 4 for ONNX: a smaller variant of a stage that ONNX Runtime runs.

Requires: an f32 ONNX file.
Ensures: a file of the same inputs and outputs, its weights in 8 bits, with standard operators alone.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from edgeexit.convert.lowering import first_line
from edgeexit.convert.noise import quiet_third_party
from edgeexit.errors import LoweringError, MissingExtra


def quantise_onnx(model: bytes, *, stage: int) -> bytes:
    """Weights of 8 bits with a scale for each channel; activations are quantised as they come.

    Raises: LoweringError, MissingExtra.
    """
    with quiet_third_party():
        try:
            import onnx
            from onnxruntime.quantization import QuantType, quantize_dynamic
        except ImportError as error:
            raise MissingExtra("onnxruntime", extra="convert", needed_for="quantising a stage") from error
        logger, level = logging.getLogger(), logging.getLogger().level
        # It advises, in the root logger, a preparation that torch's exporter has done already.
        logger.setLevel(logging.ERROR)
        try:
            tree = onnx.load_from_string(model)
            # Weights are transposed on the way, and their noted shapes are not.
            del tree.graph.value_info[:]
            with tempfile.TemporaryDirectory(prefix="edgeexit-onnx-") as folder:
                written = Path(folder) / "stage.onnx"
                quantize_dynamic(tree, str(written), per_channel=True, weight_type=QuantType.QInt8)
                small = onnx.load(str(written))
            # A set of operators may be named although none of it is used.
            used = {node.domain for node in small.graph.node}
            kept = [each for each in small.opset_import if each.domain in used]
            del small.opset_import[:]
            small.opset_import.extend(kept)
            return bytes(small.SerializeToString(deterministic=True))
        except Exception as error:  # onnx and onnxruntime have no error of their own in common
            raise LoweringError(f"quantising to int8: {first_line(error)}", stage=stage) from error
        finally:
            logger.setLevel(level)
