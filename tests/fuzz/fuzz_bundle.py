"""Coverage-guided fuzzing of all that reads a bundle's bytes; run by hand, needs `pip install atheris`.

    python tests/fuzz/fuzz_bundle.py model -max_total_time=60 -rss_limit_mb=512

The first word names what is fuzzed: model, manifest, signature, key or golden; the others are libFuzzer's.
Whatever the bytes are, the reader takes them or raises its own typed error; anything else, more memory than
allowed, or an input that takes long, ends the run with the input that did it.
"""

from __future__ import annotations

import contextlib
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["edgeexit"]):
    from edgeexit.bundle.check import check_manifest
    from edgeexit.bundle.encoding import decode_manifest
    from edgeexit.bundle.golden import decode_golden
    from edgeexit.bundle.manifest import Manifest
    from edgeexit.bundle.minisign import decode_signature, encode_signature, parse_public_key
    from edgeexit.bundle.secret_key import parse_secret_key
    from edgeexit.bundle.sign import read_statement
    from edgeexit.bundle.tflite import check_model_bytes
    from edgeexit.errors import BundleError, KeyFileError, SignatureError

DATA = Path(__file__).parents[1] / "data"
TINY = DATA / "tiny_bundle"


def model(data: bytes) -> None:
    """A model file."""
    try:
        check_model_bytes(data, file="fuzz")
    except BundleError:
        return


def manifest(data: bytes) -> None:
    """A manifest, and what it says of itself."""
    try:
        check_manifest(decode_manifest(data), file="fuzz")
    except BundleError:
        return


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


def golden_of(sound: Manifest) -> Callable[[bytes], None]:
    """Golden vectors, held against a sound manifest."""

    def golden(data: bytes) -> None:
        try:
            decode_golden(data, sound, file="fuzz")
        except BundleError:
            return

    return golden


def seeds(name: str) -> list[bytes]:
    """Sound inputs to begin with."""
    found = {
        "model": sorted((TINY / "blobs" / "sha256").iterdir()),
        "manifest": [TINY / "manifest.json"],
        "signature": sorted((DATA / "minisign").glob("*.minisig")),
        "key": [DATA / "minisign" / "public.pub"],
        "golden": [TINY / "golden" / "golden.safetensors"],
    }
    sound = [path.read_bytes() for path in found[name]]
    # The least that is taken for a model: an empty root table.
    return [*sound, struct.pack("<I4sHHi", 12, b"TFL3", 4, 4, 4)] if name == "model" else sound


def main() -> None:
    """Fuzz what the first word names."""
    targets = {
        "model": model,
        "manifest": manifest,
        "signature": signature,
        "key": key,
        "golden": golden_of(decode_manifest((TINY / "manifest.json").read_bytes())),
    }
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in targets:
        raise SystemExit(f"name what to fuzz: {', '.join(targets)}")
    with tempfile.TemporaryDirectory(prefix="edgeexit-fuzz-") as corpus:
        for number, seed in enumerate(seeds(name)):
            (Path(corpus) / str(number)).write_bytes(seed)
        # What libFuzzer finds goes to the first folder; one of the caller's own comes before the seeds.
        atheris.Setup([sys.argv[0], *sys.argv[2:], corpus], targets[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
