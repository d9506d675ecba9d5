"""Model files are examined before an interpreter is made of them: whole, closed, and made of numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeexit.bundle import Bundle
from edgeexit.bundle.tflite import check_model, check_model_bytes
from edgeexit.errors import BundleError, UnsafeModel

pytestmark = pytest.mark.litert

Spoil = Callable[["schema.ModelT"], None]


@pytest.fixture(scope="module")
def models(tiny_bundle: Bundle) -> list[bytes]:
    variants = [variant for stage in tiny_bundle.manifest.stages for variant in stage.variants]
    return [tiny_bundle.blob_path(variant.blob).read_bytes() for variant in variants]


def spoilt(model: bytes, spoil: Spoil) -> bytes:
    """The model with something changed, written anew by the schema's own code."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    spoil(tree)
    builder = schema.flatbuffers.Builder(len(model))
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def constant(tree: schema.ModelT, kind: int = 0, least: int = 2) -> schema.TensorT:
    """A tensor of weights."""
    for tensor in tree.subgraphs[0].tensors:
        data = tree.buffers[tensor.buffer].data
        if data is not None and len(data) and tensor.type == kind and np.prod(tensor.shape) >= least:
            return tensor
    raise AssertionError("no constant of this kind")


def computed(tree: schema.ModelT) -> schema.TensorT:
    """A tensor that an operator fills."""
    return tree.subgraphs[0].tensors[tree.subgraphs[0].operators[0].outputs[0]]


def test_sound_models_pass_also_when_written_by_another_writer(models: list[bytes]) -> None:
    for model in models:
        check_model_bytes(model, file="model")
        check_model_bytes(spoilt(model, lambda tree: None), file="model")


def test_a_file_is_examined_where_it_lies(tiny_bundle: Bundle, tmp_path: Path) -> None:
    blob = tiny_bundle.manifest.stages[0].variants[0].blob
    check_model(tiny_bundle.blob_path(blob), file="model")
    with pytest.raises(BundleError):
        check_model(tmp_path / "nowhere", file="model")
    for content in (b"", b"TFL3", b"not a model"):
        (tmp_path / "model").write_bytes(content)
        with pytest.raises(UnsafeModel):
            check_model(tmp_path / "model", file="model")


def weights_of(value: float) -> Spoil:
    def spoil(tree: schema.ModelT) -> None:
        buffer = tree.buffers[constant(tree).buffer]
        numbers = np.frombuffer(bytes(buffer.data), "<f4").copy()
        numbers[-1] = value
        buffer.data = np.frombuffer(numbers.tobytes(), np.uint8)

    return spoil


def foreign(name: bytes | None, code: int) -> Spoil:
    def spoil(tree: schema.ModelT) -> None:
        kind = tree.operatorCodes[0]
        kind.customCode = name
        kind.builtinCode = code
        kind.deprecatedBuiltinCode = min(code, 127)

    return spoil


def of_shape(shape: list[int]) -> Spoil:
    def spoil(tree: schema.ModelT) -> None:
        computed(tree).shape = np.array(shape, np.int32)

    return spoil


def constant_of_shape(shape: list[int]) -> Spoil:
    def spoil(tree: schema.ModelT) -> None:
        constant(tree).shape = np.array(shape, np.int32)

    return spoil


def shorter_weights(tree: schema.ModelT) -> None:
    buffer = tree.buffers[constant(tree).buffer]
    buffer.data = buffer.data[:-4]


def many_large_tensors(tree: schema.ModelT) -> None:
    tensors = tree.subgraphs[0].tensors
    for _ in range(20):
        large = schema.TensorT()
        large.shape, large.type, large.buffer = np.array([2**13, 2**13], np.int32), 0, 0
        tensors.append(large)


def nan_scale(tree: schema.ModelT) -> None:
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.array([np.nan], np.float32)
    computed(tree).quantization = quantization


def buffer_of_nowhere(tree: schema.ModelT) -> None:
    computed(tree).buffer = 9999


def weights_behind_the_file(tree: schema.ModelT) -> None:
    buffer = tree.buffers[constant(tree).buffer]
    buffer.data, buffer.offset, buffer.size = None, 2**40, 64


def unnamed_operator(tree: schema.ModelT) -> None:
    tree.subgraphs[0].operators[0].opcodeIndex = 500


def no_graph(tree: schema.ModelT) -> None:
    tree.subgraphs = []


def external_weights(tree: schema.ModelT) -> None:
    group = schema.ExternalBufferGroupT()
    group.name = b"/etc/passwd"
    tree.externalBufferGroups = [group]


REFUSED: list[tuple[str, Spoil, str]] = [
    ("NaN weights", weights_of(float("nan")), "NaN"),
    ("NaN scale", nan_scale, "NaN"),
    ("Flex operator", foreign(b"FlexErf", 32), "FlexErf"),
    ("custom operator", foreign(b"RunShell", 32), "RunShell"),
    ("custom operator without a name", foreign(None, 32), "a custom operator"),
    ("custom name on a built-in code", foreign(b"FlexAdd", 0), "FlexAdd"),
    ("delegate", foreign(None, 51), "a delegate"),
    ("call of a foreign function", foreign(None, 173), "a foreign function"),
    ("external weights", external_weights, "outside the bundle"),
    ("negative shape", of_shape([1, -4]), "shape"),
    ("absurd shape", of_shape([2**30, 2**30]), "elements"),
    ("absurd shape that overflows 64 bits", of_shape([2**31 - 1] * 8), "elements"),
    ("too many dimensions", of_shape([1] * 9), "dimensions"),
    ("tensors of 5 GB in all", many_large_tensors, "numbers"),
    ("constant larger than its bytes", constant_of_shape([1000, 100]), "bytes where its shape"),
    ("constant smaller than its bytes", constant_of_shape([1]), "bytes where its shape"),
    ("bytes too few for the shape", shorter_weights, "bytes where its shape"),
    ("buffer that is not there", buffer_of_nowhere, "buffer that is not there"),
    ("weights behind the end", weights_behind_the_file, "leaves the file"),
    ("operator of no kind", unnamed_operator, "does not name"),
    ("no graph", no_graph, "no graph"),
]


@pytest.mark.parametrize(("spoil", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_hostile_models_are_refused_each_in_its_words(models: list[bytes], spoil: Spoil, words: str) -> None:
    with pytest.raises(UnsafeModel) as caught:
        check_model_bytes(spoilt(models[0], spoil), file="model")
    assert words in str(caught.value)
    assert caught.value.file == "model"
    assert caught.value.fix


def test_infinite_constants_pass_since_masks_are_made_of_them(models: list[bytes]) -> None:
    check_model_bytes(spoilt(models[0], weights_of(float("-inf"))), file="model")


@pytest.mark.parametrize(
    ("kind", "dtype", "bad"),
    [(1, "<u2", 0x7E00), (18, "<u2", 0x7FC0), (10, "<u8", 0x7FF8 << 48)],
    ids=["f16", "bf16", "f64"],
)
def test_every_floating_type_is_looked_at(models: list[bytes], kind: int, dtype: str, bad: int) -> None:
    def spoil(value: int) -> Spoil:
        def change(tree: schema.ModelT) -> None:
            tensor = constant(tree)
            numbers = np.zeros(int(np.prod(tensor.shape)), dtype)
            numbers[0] = value
            tensor.type = kind
            tree.buffers[tensor.buffer].data = np.frombuffer(numbers.tobytes(), np.uint8)

        return change

    check_model_bytes(spoilt(models[0], spoil(1)), file="model")
    with pytest.raises(UnsafeModel, match="NaN"):
        check_model_bytes(spoilt(models[0], spoil(bad)), file="model")


def test_constants_that_lie_over_each_other_are_not_read_again_and_again() -> None:
    # One megabyte of weights behind 4,000 buffers and 4,000 tensors: 4 GB to look through, if one let it.
    count, payload = 4000, np.zeros(2**20, np.int8)
    tree = schema.ModelT()
    tree.version, tree.operatorCodes = 3, []
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
    tree.buffers, tree.subgraphs = [], [graph]
    for index in range(count):
        buffer, tensor = schema.BufferT(), schema.TensorT()
        buffer.offset, buffer.size = 8, payload.nbytes
        tensor.shape, tensor.type, tensor.buffer = np.array([2**20], np.int32), 9, index
        tree.buffers.append(buffer)
        graph.tensors.append(tensor)
    builder = schema.flatbuffers.Builder(2**20)
    builder.Finish(tree.Pack(builder), b"TFL3")
    with pytest.raises(UnsafeModel, match="over each other"):
        check_model_bytes(bytes(builder.Output()) + payload.tobytes(), file="model")


def test_truncated_models_are_refused(models: list[bytes]) -> None:
    for model in models[:2]:
        for length in [*range(64), *range(64, len(model) - 200, 97)]:
            with pytest.raises(UnsafeModel):
                check_model_bytes(model[:length], file="model")


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_models_are_refused_or_pass_and_nothing_else(
    models: list[bytes], data: st.DataObject
) -> None:
    damaged = bytearray(data.draw(st.sampled_from(models)))
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(damaged) - 1))
        patch = data.draw(
            st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 4, bytes(4)]))
        )
        damaged[index : index + len(patch)] = patch
    try:
        check_model_bytes(bytes(damaged), file="model")
    except UnsafeModel:
        return


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_behind_the_identifier_are_survived(data: bytes) -> None:
    with pytest.raises(UnsafeModel):
        check_model_bytes(data[:4].ljust(4, b"\0") + b"TFL3" + data[4:], file="model")
