"""What an ONNX file may make a machine allocate: no more than a cap, while it is opened and while it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeexit.bundle.onnx import check_onnx
from edgeexit.errors import RunnerError
from edgeexit.runner.onnx import MOST_MEMORY_BYTES, most_memory_bytes, require_onnx_runtime

# A column of so many ones, times itself as a row, would be 16 GiB of floats.
ROWS = 2**16


def grown(path: Path, *, constant: bool) -> Path:
    """A file of 260 kB that makes a tensor of 16 GiB, from its input or from constants alone."""
    column = numpy_helper.from_array(np.ones((ROWS, 1), np.float32), "column")
    row = numpy_helper.from_array(np.ones((1, ROWS), np.float32), "row")
    nodes = [
        helper.make_node(
            "Identity" if constant else "Mul", ["column"] if constant else ["column", "x"], ["a"]
        ),
        helper.make_node("MatMul", ["a", "row"], ["b"]),
        helper.make_node("ReduceMax", ["b"], ["c"], keepdims=0),
        helper.make_node("Mul", ["c", "x"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "stage", ends[:1], ends[1:], [column, row])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.parametrize("constant", [False, True])
def test_a_small_file_cannot_take_the_memory_of_a_machine(tmp_path: Path, constant: bool) -> None:
    path = grown(tmp_path / "stage.onnx", constant=constant)
    check_onnx(path, file="stage.onnx")  # each of its operators is one that stages have
    runtime = require_onnx_runtime(extra="onnx", needed_for="this test")
    try:
        session = runtime.session(path, 1)
    except RunnerError as error:  # where constants are folded
        assert "arena" in str(error.why)  # noqa: PT017
        return
    with pytest.raises(Exception, match="arena"):
        session.run(["y"], {"x": np.ones((1, 1), np.float32)})


def test_the_cap_leaves_half_of_a_small_board_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_memory_bytes() <= MOST_MEMORY_BYTES
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 2**18, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert most_memory_bytes() == 2**29
