"""A bundle on disk: opened only when every byte of it is the one that was made."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from edgeexit.bundle.check import check_manifest
from edgeexit.bundle.encoding import MANIFEST_CAP_BYTES, MANIFEST_FILE, decode_manifest
from edgeexit.bundle.golden import GOLDEN_CAP_BYTES, GoldenVectors, decode_golden
from edgeexit.bundle.manifest import Blob, Manifest, Packer
from edgeexit.bundle.minisign import SIGNATURE_CAP_BYTES, Signature, decode_signature
from edgeexit.bundle.onnx import check_onnx
from edgeexit.bundle.packer_golden import PACKER_GOLDEN_CAP_BYTES, PackerGolden, decode_packer_golden
from edgeexit.bundle.paths import check_sha256, check_size, inside, read_capped
from edgeexit.bundle.sign import SIGNATURE_FILE
from edgeexit.bundle.tflite import check_model
from edgeexit.bundle.trust import Trust
from edgeexit.errors import BundleError, IntegrityError

# Beside the manifest lies its digest, in the form that `sha256sum -c manifest.json.sha256` checks.
DIGEST_FILE = "manifest.json.sha256"
_DIGEST_CAP_BYTES = 256


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: immutable, named by the digest of its manifest.

    `path` is the directory itself, links resolved, so that a switched link changes nothing under it.
    `signature` lies beside the manifest, well-formed; it was verified only where `open_bundle` was told
    whom to trust.
    """

    path: Path
    manifest: Manifest
    digest: str
    signature: Signature | None = None

    @property
    def short_digest(self) -> str:
        """The first twelve hex digits, for topics, folders and people."""
        return self.digest[:12]

    def files(self) -> tuple[str, ...]:
        """Every file of the bundle, relative: the manifest and what vouches for it last."""
        blobs = dict.fromkeys(blob.file for blob in self.manifest.blobs())
        signature = () if self.signature is None else (SIGNATURE_FILE,)
        return (*blobs, *signature, DIGEST_FILE, MANIFEST_FILE)

    def blob_path(self, blob: Blob) -> Path:
        """Where a blob of this bundle lies. Raises: UnsafePath, MissingFile, BundleError."""
        return inside(self.path, blob.file)

    def golden(self) -> GoldenVectors:
        """The golden vectors, read and verified anew.

        Raises: BundleError and its leaves; MissingExtra.
        """
        blob = self.manifest.golden
        data = read_capped(self.path, blob.file, cap_bytes=GOLDEN_CAP_BYTES)
        actual = hashlib.sha256(data).hexdigest()
        if actual != blob.sha256:
            raise IntegrityError(file=blob.file, expected_sha256=blob.sha256, actual_sha256=actual)
        return decode_golden(data, self.manifest, file=blob.file)

    def packer_golden(self, packer: Packer) -> PackerGolden:
        """The golden vectors of one packer, read and verified anew.

        Raises: BundleError and its leaves; MissingExtra.
        """
        blob = packer.golden
        data = read_capped(self.path, blob.file, cap_bytes=PACKER_GOLDEN_CAP_BYTES)
        actual = hashlib.sha256(data).hexdigest()
        if actual != blob.sha256:
            raise IntegrityError(file=blob.file, expected_sha256=blob.sha256, actual_sha256=actual)
        return decode_packer_golden(data, packer, classes=self.manifest.exits[-1].output.shape[-1])


def open_bundle(path: Path, *, expected_digest: str | None = None, trust: Trust | None = None) -> Bundle:
    """Open a bundle after verifying all of it: signature, manifest, paths, sizes, digests, model files.

    The digest beside the manifest finds accidents and careless edits; it is no signature. Whoever
    knows which bundle it must be passes `expected_digest`, who knows whom it must come from `trust`:
    without trusted keys a signature is read, and not verified.
    Raises: NotSigned, SignatureError, OlderSerial, ManifestError, MissingFile, UnsafePath, IntegrityError,
    ShapeError, UnsafeModel, BundleError; MissingExtra where a signature cannot be verified.
    """
    trusted = Trust() if trust is None else trust
    try:
        root = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        why = "there is no such directory" if isinstance(error, FileNotFoundError) else str(error)
        fix = "name the directory that holds manifest.json"
        raise BundleError(f"no bundle at {path}", file=str(path), why=why, fix=fix) from error
    if not root.is_dir():
        raise BundleError(
            f"no bundle at {path}",
            file=str(path),
            why="a bundle is a directory",
            fix="name the directory that holds manifest.json",
        )
    data = read_capped(root, MANIFEST_FILE, cap_bytes=MANIFEST_CAP_BYTES)
    signature = _read_signature(root)
    trusted.check_bytes(data, signature)
    manifest = decode_manifest(data)
    digest = hashlib.sha256(data).hexdigest()
    _check_digest(root, digest, expected_digest)
    check_manifest(manifest, file=MANIFEST_FILE)
    trusted.check_manifest(manifest, signature)
    blobs = dict.fromkeys(manifest.blobs())
    for blob in blobs:
        check_size(root, blob.file, size_bytes=blob.size_bytes)
    for blob in blobs:
        check_sha256(root, blob.file, sha256=blob.sha256)
    models = (variant for stage in manifest.stages for variant in stage.variants)
    packers = (file for packer in manifest.packers() for file in (packer.pack.file, packer.unpack.file))
    stages = (variant.blob.file for variant in models if variant.format == "tflite")
    for file in dict.fromkeys((*stages, *packers)):
        check_model(inside(root, file), file=file)
    given = (variant for stage in manifest.stages for variant in stage.variants)
    for file in dict.fromkeys(variant.blob.file for variant in given if variant.format == "onnx"):
        check_onnx(inside(root, file), file=file)
    return Bundle(path=root, manifest=manifest, digest=digest, signature=signature)


def digest_line(digest: str) -> bytes:
    """What `DIGEST_FILE` holds."""
    return f"{digest}  {MANIFEST_FILE}\n".encode()


def _read_signature(root: Path) -> Signature | None:
    """The signature beside the manifest; None where there is none. Raises: SignatureError, UnsafePath."""
    if not os.path.lexists(root / SIGNATURE_FILE):
        return None
    data = read_capped(root, SIGNATURE_FILE, cap_bytes=SIGNATURE_CAP_BYTES)
    return decode_signature(data, file=SIGNATURE_FILE)


def _check_digest(root: Path, digest: str, expected: str | None) -> None:
    written = read_capped(root, DIGEST_FILE, cap_bytes=_DIGEST_CAP_BYTES)
    if written != digest_line(digest):
        promised = written.decode("ascii", "replace").partition(" ")[0]
        raise IntegrityError(file=MANIFEST_FILE, expected_sha256=promised, actual_sha256=digest)
    if expected is not None and expected != digest:
        raise IntegrityError(file=MANIFEST_FILE, expected_sha256=expected, actual_sha256=digest)
