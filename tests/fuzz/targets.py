"""What reads a bundle's bytes, each as a function of bytes; sound inputs to begin with.

Whatever the bytes are, a target returns, or raises what is a fault: the reader's own typed errors are taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeexit.bundle.check import check_manifest
from edgeexit.bundle.encoding import decode_manifest
from edgeexit.bundle.golden import decode_golden
from edgeexit.bundle.minisign import decode_signature, encode_signature, parse_public_key
from edgeexit.bundle.onnx import check_onnx_bytes
from edgeexit.bundle.packer_golden import decode_packer_golden
from edgeexit.bundle.secret_key import parse_secret_key
from edgeexit.bundle.sign import read_statement
from edgeexit.bundle.store import DIGEST_FILE, digest_line, open_bundle
from edgeexit.bundle.tflite import check_model_bytes
from edgeexit.bundle.write import golden_blob, model_blob
from edgeexit.errors import BundleError, KeyFileError, SignatureError

DATA = Path(__file__).parents[1] / "data"
TINY = DATA / "tiny_bundle"
PACKED = DATA / "packed_bundle"
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Target:
    """One reader: what runs it, and what it takes."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def model(data: bytes) -> None:
    """A TFLite file."""
    with contextlib.suppress(BundleError):
        check_model_bytes(data, file="fuzz")


def onnx(data: bytes) -> None:
    """An ONNX file."""
    with contextlib.suppress(BundleError):
        check_onnx_bytes(data, file="fuzz")


def manifest(data: bytes) -> None:
    """A manifest, and what it says of itself."""
    with contextlib.suppress(BundleError):
        check_manifest(decode_manifest(data), file="fuzz")


def signature(data: bytes) -> None:
    """A signature file; what is read is written as it was, but for line ends and base64's unused bits."""
    try:
        read = decode_signature(data, file="fuzz")
        read_statement(read)
    except SignatureError:
        return
    if decode_signature(encode_signature(read), file="again").signature != read.signature:
        raise AssertionError("a signature changed when it was written")


def key(data: bytes) -> None:
    """A key file, public or secret. A locked one is not unlocked: that takes a second by design."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(KeyFileError):
        parse_public_key(text, file="fuzz")
    with contextlib.suppress(KeyFileError):
        parse_secret_key(text, None, file="fuzz")


def golden(data: bytes) -> None:
    """Golden vectors, held against a sound manifest."""
    sound = decode_manifest((TINY / MANIFEST).read_bytes())
    with contextlib.suppress(BundleError):
        decode_golden(data, sound, file="fuzz")


def packer(data: bytes) -> None:
    """Golden vectors of a packer, held against a sound manifest."""
    sound = decode_manifest((PACKED / MANIFEST).read_bytes())
    with contextlib.suppress(BundleError):
        decode_packer_golden(data, sound.packers()[0], classes=sound.exits[-1].output.shape[-1])


def bundle(data: bytes) -> None:
    """A whole bundle, one file of it these bytes, rightly named: the first byte says which."""
    which, content = data[:1], data[1:]
    with tempfile.TemporaryDirectory(prefix="edgeexit-fuzz-") as folder:
        root = Path(shutil.copytree(TINY, Path(folder) / "bundle"))
        document = json.loads((root / MANIFEST).read_bytes())
        if which in b"m":
            written = content
        else:
            if which == b"g":
                blob = golden_blob(content)
                document["golden"] = msgspec.to_builtins(blob)
            else:
                blob = model_blob(content)
                variant = document["stages"][0]["variants"][0]
                variant["blob"] = msgspec.to_builtins(blob)
                if which == b"o":
                    variant |= {"format": "onnx", "runtimes": ["onnxruntime"]}
            (root / blob.file).write_bytes(content)
            written = msgspec.json.encode(document, order="sorted")
        (root / MANIFEST).write_bytes(written)
        (root / DIGEST_FILE).write_bytes(digest_line(hashlib.sha256(written).hexdigest()))
        with contextlib.suppress(BundleError):
            open_bundle(root).golden()


def _files(*paths: Path) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def _models() -> list[bytes]:
    # The least that is taken for a model: an empty root table.
    least = struct.pack("<I4sHHi", 12, b"TFL3", 4, 4, 4)
    return [*_files(*sorted((TINY / "blobs" / "sha256").iterdir())), least]


def _onnx() -> list[bytes]:
    """A matrix product with its weights inside, as protobuf writes it."""
    from onnx import TensorProto, helper

    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], [0.5] * 8)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "stage",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [weights],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return [bytes(made.SerializeToString())]


def _packers() -> list[bytes]:
    sound = decode_manifest((PACKED / MANIFEST).read_bytes())
    return [(PACKED / each.golden.file).read_bytes() for each in sound.packers()]


def _bundles() -> list[bytes]:
    golden_file = TINY / "golden" / "golden.safetensors"
    return [
        *(b"f" + each for each in _models()),
        *(b"o" + each for each in _onnx()),
        b"m" + (TINY / MANIFEST).read_bytes(),
        b"g" + golden_file.read_bytes(),
    ]


TARGETS = {
    "model": Target(model, _models),
    "onnx": Target(onnx, _onnx),
    "manifest": Target(manifest, lambda: _files(TINY / MANIFEST, PACKED / MANIFEST)),
    "signature": Target(signature, lambda: _files(*sorted((DATA / "minisign").glob("*.minisig")))),
    "key": Target(key, lambda: _files(DATA / "minisign" / "public.pub")),
    "golden": Target(golden, lambda: _files(TINY / "golden" / "golden.safetensors")),
    "packer": Target(packer, _packers),
    "bundle": Target(bundle, _bundles),
}
