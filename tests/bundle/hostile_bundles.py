"""Ways of making a bundle do harm, each with the error that it meets."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeexit.bundle import model_blob
from edgeexit.bundle.check import blob_path
from edgeexit.bundle.store import DIGEST_FILE, digest_line
from edgeexit.errors import (
    BundleError,
    IntegrityError,
    ManifestError,
    MissingFile,
    ShapeError,
    UnsafeModel,
    UnsafePath,
)

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Spoil = Callable[[Path], None]

MANIFEST = "manifest.json"
# What opening a bundle of 42 kB may take, whatever it claims to be: a manifest of 4 MiB, decoded, and room.
MOST_MEMORY_BYTES = 64 * 2**20


def remade(root: Path, document: Json) -> None:
    """Write the manifest with its digest beside it: somebody who does harm knows how."""
    data = msgspec.json.encode(document, order="sorted")
    (root / MANIFEST).write_bytes(data)
    (root / DIGEST_FILE).write_bytes(digest_line(hashlib.sha256(data).hexdigest()))


def with_value(path: str, value: Json) -> Spoil:
    """Sets one value of the manifest."""

    def spoil(root: Path) -> None:
        document = json.loads((root / MANIFEST).read_bytes())
        place = document
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in steps:
            place = place[step]
        place[last] = value
        remade(root, document)

    return spoil


def with_model(content: Callable[[bytes], bytes]) -> Spoil:
    """Puts another first model, and names it rightly in the manifest."""

    def spoil(root: Path) -> None:
        document = json.loads((root / MANIFEST).read_bytes())
        entry = document["stages"][0]["variants"][0]
        data = content((root / entry["blob"]["file"]).read_bytes())
        blob = model_blob(data)
        (root / blob.file).write_bytes(data)
        entry["blob"] = msgspec.to_builtins(blob)
        remade(root, document)

    return spoil


def rewritten(change: Callable[[schema.ModelT], None]) -> Spoil:
    """A model that the schema's own code wrote, with something changed."""

    def content(model: bytes) -> bytes:
        tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
        change(tree)
        builder = schema.flatbuffers.Builder(len(model))
        builder.Finish(tree.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    return with_model(content)


def nan_weights(tree: schema.ModelT) -> None:
    for tensor in tree.subgraphs[0].tensors:
        buffer = tree.buffers[tensor.buffer]
        if tensor.type == 0 and buffer.data is not None and len(buffer.data):
            numbers = np.full(len(buffer.data) // 4, np.nan, "<f4")
            buffer.data = np.frombuffer(numbers.tobytes(), np.uint8)


def flex_operator(tree: schema.ModelT) -> None:
    kind = tree.operatorCodes[0]
    kind.customCode, kind.builtinCode, kind.deprecatedBuiltinCode = b"FlexConv2D", 32, 32


def called_onnx(content: Callable[[bytes], bytes]) -> Spoil:
    """A first model that is called an ONNX one, and named rightly."""

    def spoil(root: Path) -> None:
        with_model(content)(root)
        with_value("stages.0.variants.0.format", "onnx")(root)

    return spoil


@cache
def foreign_onnx() -> bytes:
    """An operator of somebody's own library."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Steal", ["x"], ["y"], domain="com.evil")], "g", [], []
    )
    opsets = [onnx.helper.make_opsetid("com.evil", 1)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets).SerializeToString())


def absurd_tensor(tree: schema.ModelT) -> None:
    tree.subgraphs[0].tensors[0].shape = np.array([1, 2**30, 2**30], np.int32)


@cache
def zip_bomb() -> bytes:
    """100 MB of zeros in 100 kB."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(100_000_000))
    return made.getvalue()


def model_of(root: Path) -> Path:
    document = json.loads((root / MANIFEST).read_bytes())
    return root / str(document["stages"][0]["variants"][0]["blob"]["file"])


def truncated(file: Callable[[Path], Path]) -> Spoil:
    def spoil(root: Path) -> None:
        place = file(root)
        place.write_bytes(place.read_bytes()[:-7])

    return spoil


def flipped(root: Path) -> None:
    place = model_of(root)
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 4
    place.write_bytes(data)


def wrong_digest(root: Path) -> None:
    (root / DIGEST_FILE).write_bytes(digest_line("ab" * 32))


def renamed_model(root: Path) -> None:
    """Another file under the digest of the right one, of the right size."""
    place = model_of(root)
    place.write_bytes(bytes(place.stat().st_size))


def model_of_another_name(root: Path) -> None:
    with_value("stages.0.variants.0.blob.file", blob_path("0" * 64))(root)


def absent_model(root: Path) -> None:
    document = json.loads((root / MANIFEST).read_bytes())
    document["stages"][0]["variants"][0]["blob"].update(file=blob_path("0" * 64), sha256="0" * 64)
    remade(root, document)


def link_outside(root: Path) -> None:
    place = model_of(root)
    place.rename(root.parent / "outside")
    place.symlink_to(root.parent / "outside")


def folder_outside(root: Path) -> None:
    (root / "golden").rename(root.parent / "elsewhere")
    (root / "golden").symlink_to(root.parent / "elsewhere")


def pipe(root: Path) -> None:
    place = model_of(root)
    place.unlink()
    os.mkfifo(place)


def endless_manifest(root: Path) -> None:
    os.truncate(root / MANIFEST, 2**36)  # sparse: it takes no room


def deep_manifest(root: Path) -> None:
    (root / MANIFEST).write_bytes(b'{"schema":1,"labels":' + b"[" * 2_000_000)


def many_stages(root: Path) -> None:
    document = json.loads((root / MANIFEST).read_bytes())
    for part in ("stages", "exits", "boundaries"):
        document[part] = document[part][:2] * 500
    remade(root, document)


def archive_for_a_bundle(root: Path) -> None:
    shutil.rmtree(root)
    root.write_bytes(zip_bomb())


@dataclass(frozen=True, slots=True)
class Case:
    """One harmful bundle: how it is made, and how it must be refused."""

    name: str
    spoil: Spoil
    kind: type[BundleError]
    words: str


CASES = [
    Case("truncated manifest", truncated(lambda root: root / MANIFEST), ManifestError, "malformed"),
    Case("truncated model", truncated(model_of), BundleError, "another size"),
    Case(
        "truncated golden vectors",
        truncated(lambda root: root / "golden" / "golden.safetensors"),
        BundleError,
        "another size",
    ),
    Case("flipped bit", flipped, IntegrityError, "changed after the bundle was made"),
    Case("wrong digest of the manifest", wrong_digest, IntegrityError, "sha256"),
    Case("another file of the same size", renamed_model, IntegrityError, "sha256"),
    Case("model under another digest", model_of_another_name, ManifestError, "its own digest"),
    Case("model that is not there", absent_model, MissingFile, "missing"),
    Case("path that climbs", with_value("golden.file", "golden/../../x.safetensors"), UnsafePath, "'..'"),
    Case("path from the root", with_value("golden.file", "/etc/shadow"), UnsafePath, "absolute"),
    Case("path with a drive", with_value("golden.file", "C:golden"), UnsafePath, "colon"),
    Case("link that leaves", link_outside, UnsafePath, "link"),
    Case("folder that leaves", folder_outside, UnsafePath, "link"),
    Case("pipe for a model", pipe, BundleError, "ordinary file"),
    Case("manifest of 64 GB", endless_manifest, BundleError, "larger than"),
    Case("manifest nested without end", deep_manifest, ManifestError, "malformed"),
    Case("a thousand stages", many_stages, ManifestError, "stages"),
    Case(
        "boundary of 4e18 elements",
        with_value("boundaries.1.tensors.0.shape", [1, 2**31, 2**31]),
        ManifestError,
        "boundaries[1].tensors[0].shape",
    ),
    Case(
        "boundary of no elements",
        with_value("boundaries.1.tensors.0.shape", [1, 0]),
        ManifestError,
        "boundaries[1].tensors[0].shape",
    ),
    Case("image of 65,536 pixels a side", with_value("preprocessing.height", 65_536), ShapeError, "fit"),
    Case(
        "temperature that is none", with_value("exits.0.calibrations.0.temperature", 0.0), ManifestError, "0"
    ),
    Case("not a model", with_model(lambda _: b"#!/bin/sh\nrm -rf /\n"), UnsafeModel, "no TFLite file"),
    Case("zip bomb for a model", with_model(lambda _: zip_bomb()), UnsafeModel, "no TFLite file"),
    Case("half a model", with_model(lambda model: model[: len(model) // 2]), UnsafeModel, "leave"),
    Case("NaN weights", rewritten(nan_weights), UnsafeModel, "NaN"),
    Case("Flex operator", rewritten(flex_operator), UnsafeModel, "FlexConv2D"),
    Case("tensor of 1e18 elements", rewritten(absurd_tensor), UnsafeModel, "shape"),
    Case("no ONNX file", called_onnx(lambda model: model), UnsafeModel, ""),
    Case("foreign operator in an ONNX file", called_onnx(lambda _: foreign_onnx()), UnsafeModel, "com.evil"),
    Case("archive for a bundle", archive_for_a_bundle, BundleError, "a bundle is a directory"),
]
each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
