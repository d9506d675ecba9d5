"""ONNX files made to do harm: each is refused in its own words, and nothing outside the file is opened."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeexit.bundle import Bundle, model_blob, open_bundle, write_bundle
from edgeexit.bundle.onnx import check_onnx, check_onnx_bytes, output_name
from edgeexit.errors import BundleError, UnsafeModel

Change = Callable[[onnx.ModelProto], None]


def sound() -> onnx.ModelProto:
    """A stage of one dense layer, with a reshape and a pad by constants."""
    weight = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["tokens", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], [output_name("logits")]),
        helper.make_node("Expand", ["bias", "sizes"], ["wide"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stage",
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info(output_name("logits"), TensorProto.FLOAT, [1, 3])],
        initializer=[
            numpy_helper.from_array(weight, "weight"),
            helper.make_tensor("bias", TensorProto.FLOAT, [3], [0.1, 0.2, 0.3]),
            helper.make_tensor("sizes", TensorProto.INT64, [2], [4, 3]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


SOUND = sound().SerializeToString()


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"


def elsewhere(model: onnx.ModelProto) -> None:
    """Says where, but not that it is there."""
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "weights.bin"


def vendor_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def vendor_operators(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def other_domain(model: onnx.ModelProto) -> None:
    model.opset_import[0].domain = "ai.onnx.ml"


def own_function(model: onnx.ModelProto) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(
        helper.make_function("", "MatMul", ["x"], ["y"], nodes, [helper.make_opsetid("", 20)])
    )


def new_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 4000


def nan_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = np.full((8, 3), np.nan, "<f4").tobytes()


def nan_listed(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].float_data[1] = float("nan")


def nan_half(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.full(2, np.nan, np.float16), "half"))


def short_constant(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = b"\0" * 4


def short_list(model: onnx.ModelProto) -> None:
    del model.graph.initializer[2].int64_data[0]


def absurd_constant(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**40]


def negative_constant(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-8, -3]


def absurd_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**50


def many_dims(model: onnx.ModelProto) -> None:
    for _ in range(20):
        model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 1


def expands_to_absurd(model: onnx.ModelProto) -> None:
    model.graph.initializer[2].int64_data[0] = 2**40


def expands_by_a_value(model: onnx.ModelProto) -> None:
    model.graph.node[2].input[1] = "product"


def loops(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["x"], body=body))


def nested(model: onnx.ModelProto) -> None:
    graph = helper.make_graph([], "deepest", [], [])
    for _ in range(12):
        node = helper.make_node("If", ["c"], ["x"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "deeper", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["x"], then_branch=graph))


def nested_constant(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.full(3, np.nan, np.float32), "hidden")
    inside = helper.make_graph([helper.make_node("Constant", [], ["h"], value=tensor)], "inside", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["x"], then_branch=inside))


def sparse(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("p", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3]))


def text(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [1], [b"word"]))


def sequence(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_sequence_value_info("many", TensorProto.FLOAT, [1]))


def no_graph(model: onnx.ModelProto) -> None:
    model.ClearField("graph")


HARM: tuple[tuple[Change, str], ...] = (
    (external, "outside the bundle"),
    (elsewhere, "outside the bundle"),
    (vendor_operator, "com.example"),
    (vendor_operators, "com.example|one set of operators"),
    (other_domain, "ai.onnx.ml"),
    (own_function, "functions"),
    (new_opset, "opset 4000"),
    (nan_weights, "NaN"),
    (nan_listed, "NaN"),
    (nan_half, "NaN"),
    (short_constant, "4 bytes where its shape takes 96"),
    (short_list, "1 numbers where its shape takes 2"),
    (absurd_constant, "shape"),
    (negative_constant, "shape"),
    (absurd_input, "shape"),
    (many_dims, "shape"),
    (expands_to_absurd, "Expand would make"),
    (expands_by_a_value, "from what is computed"),
    (loops, "Loop"),
    (nested, "nested too deeply"),
    (nested_constant, "NaN"),
    (sparse, "sparse"),
    (text, "unknown type|not known"),
    (sequence, "than tensors"),
    (no_graph, "no ONNX model"),
)


def test_a_sound_file_passes_in_its_place_and_in_memory(tmp_path: Path) -> None:
    check_onnx_bytes(SOUND, file="stage")
    path = tmp_path / "stage.onnx"
    path.write_bytes(SOUND)
    check_onnx(path, file="stage")


@pytest.mark.parametrize(("change", "words"), HARM, ids=[change.__name__ for change, _ in HARM])
def test_each_harm_is_refused_in_its_own_words(change: Change, words: str) -> None:
    model = sound()
    change(model)
    with pytest.raises(UnsafeModel, match=words) as caught:
        check_onnx_bytes(model.SerializeToString(), file="blobs/x")
    assert caught.value.file == "blobs/x"
    assert caught.value.fix is not None


def test_an_empty_or_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(UnsafeModel, match="empty"):
        check_onnx(tmp_path / "empty", file="empty")
    with pytest.raises(BundleError, match="cannot be read"):
        check_onnx(tmp_path / "missing", file="missing")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_done_to_a_file_it_passes_or_is_refused(data: st.DataObject) -> None:
    spoiled = bytearray(SOUND)
    for _ in range(data.draw(st.integers(0, 4))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    del spoiled[data.draw(st.integers(1, len(spoiled))) :]
    try:
        check_onnx_bytes(bytes(spoiled), file="x")
    except UnsafeModel:
        return


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(UnsafeModel):
        check_onnx_bytes(noise, file="x")


def test_a_long_file_takes_little_memory() -> None:
    model = sound()
    big = np.ones((2**21, 4), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(big, "big"))
    data = model.SerializeToString()
    tracemalloc.start()
    check_onnx_bytes(data, file="x")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2 * 2**20


def with_onnx(bundle: Bundle, model: bytes, out: Path) -> Path:
    """The tiny bundle with one ONNX variant more, written as somebody would who does harm."""
    manifest = bundle.manifest
    blob = model_blob(model)
    first = manifest.stages[0].variants[0]
    extra = msgspec.structs.replace(first, name="onnx", format="onnx", blob=blob, runtimes=("onnxruntime",))
    stage = msgspec.structs.replace(manifest.stages[0], variants=(*manifest.stages[0].variants, extra))
    made = msgspec.structs.replace(manifest, stages=(stage, *manifest.stages[1:]))
    files = {each.file: bundle.blob_path(each).read_bytes() for each in manifest.blobs()}
    return write_bundle(out, made, {**files, blob.file: model}).path


def test_a_bundle_with_a_harmful_onnx_stage_is_refused_as_a_whole(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    path = with_onnx(tiny_bundle, SOUND, tmp_path / "sound")
    assert open_bundle(path).manifest.stages[0].variants[-1].format == "onnx"
    model = sound()
    external(model)
    with pytest.raises(UnsafeModel, match="outside the bundle"):
        with_onnx(tiny_bundle, model.SerializeToString(), tmp_path / "harmful")
    assert not (tmp_path / "harmful").exists()
