"""Several model files become one, and each of its signatures answers as its file did."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import cast

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeexit.bundle import Bundle
from edgeexit.bundle.flatbuffer_draft import FILE_ALIGNMENT
from edgeexit.bundle.merge import merged
from edgeexit.bundle.tflite import check_model_bytes
from edgeexit.errors import UnsafeModel

pytestmark = pytest.mark.litert

Outputs = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="module")
def models(tiny_bundle: Bundle) -> list[bytes]:
    """All files of all stages and precisions; those of int8 keep constants behind their tables."""
    variants = [variant for stage in tiny_bundle.manifest.stages for variant in stage.variants]
    return [tiny_bundle.blob_path(variant.blob).read_bytes() for variant in variants]


def joined(files: list[bytes], keys: list[str] | None = None) -> bytes:
    views = [memoryview(file) for file in files]
    one = merged(views, [f"s{k}" for k in range(len(files))] if keys is None else keys)
    data = b"".join(one.pieces(views))
    assert len(data) == one.size_bytes
    assert all(begin % FILE_ALIGNMENT == 0 for begin in one.begins)
    assert all(data[begin : begin + len(file)] == file for begin, file in zip(one.begins, files, strict=True))
    return data


def answer(model: bytes, key: str, seed: int) -> Outputs:
    interpreter = Interpreter(model_content=model, num_threads=1)
    runner = interpreter.get_signature_runner(key)
    rng = np.random.default_rng(seed)
    inputs = {
        name: rng.normal(size=details["shape"]).astype(details["dtype"])
        for name, details in runner.get_input_details().items()
    }
    return cast("Outputs", runner(**inputs))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_signature_answers_as_its_file_bit_for_bit(models: list[bytes], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(range(len(models))), min_size=1, max_size=6))
    seed = data.draw(st.integers(0, 2**16))
    one = joined([models[index] for index in chosen])
    check_model_bytes(one, file="model")
    for position, index in enumerate(chosen):
        alone = answer(models[index], "serving_default", seed)
        together = answer(one, f"s{position}", seed)
        assert alone.keys() == together.keys()
        for name in alone:
            np.testing.assert_array_equal(alone[name], together[name])


def rewritten(model: bytes, change: Callable[[schema.ModelT], None]) -> bytes:
    """The model with something changed, written by the schema's own code."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    change(tree)
    builder = schema.flatbuffers.Builder(len(model))
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_files_of_another_writer_merge_too_and_their_notes_stay_behind(models: list[bytes]) -> None:
    def noted(tree: schema.ModelT) -> None:
        for operator in tree.subgraphs[0].operators:
            operator.debugMetadataIndex = 7
        tree.subgraphs[0].debugMetadataIndex = 3

    file = rewritten(models[0], noted)
    one = joined([file, file])
    for key in ("s0", "s1"):
        alone, together = answer(file, "serving_default", 1), answer(one, key, 1)
        for name in alone:
            np.testing.assert_array_equal(alone[name], together[name])
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(one, 0))
    assert {each.debugMetadataIndex for graph in tree.subgraphs for each in graph.operators} == {-1}


def two_graphs(tree: schema.ModelT) -> None:
    tree.subgraphs.append(tree.subgraphs[0])


def two_signatures(tree: schema.ModelT) -> None:
    tree.signatureDefs.append(tree.signatureDefs[0])


def no_signature(tree: schema.ModelT) -> None:
    tree.signatureDefs = []


def of_another_graph(tree: schema.ModelT) -> None:
    tree.signatureDefs[0].subgraphIndex = 1


def full_first_buffer(tree: schema.ModelT) -> None:
    tree.buffers[0].data = np.zeros(4, np.uint8)


def weights_outside(tree: schema.ModelT) -> None:
    tree.subgraphs[0].tensors[0].externalBuffer = 1


REFUSED = {
    "2 graphs": two_graphs,
    "2 signatures": two_signatures,
    "with a graph and a signature": no_signature,
    "not of its one graph": of_another_graph,
    "first buffer": full_first_buffer,
    "not known here": weights_outside,
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_one_of_several_is_refused_in_its_words(models: list[bytes], words: str) -> None:
    with pytest.raises(UnsafeModel, match=words):
        joined([models[0], rewritten(models[0], REFUSED[words])])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_merge_or_are_refused(models: list[bytes], data: st.DataObject) -> None:
    damaged = bytearray(models[data.draw(st.integers(0, len(models) - 1))])
    for _ in range(data.draw(st.integers(1, 4))):
        # The tables lie at the begin and at the end; between them are weights.
        place = data.draw(st.integers(0, min(4096, len(damaged)) - 1))
        place = data.draw(st.sampled_from([place, len(damaged) - 1 - place]))
        damaged[place] = data.draw(st.integers(0, 255))
    with suppress(UnsafeModel):
        joined([bytes(damaged), models[0]])
