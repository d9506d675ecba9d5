"""Writing a bundle: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgeexit.bundle.check import blob_path
from edgeexit.bundle.encoding import MANIFEST_FILE, digest_of, encode_manifest
from edgeexit.bundle.manifest import Blob, Manifest
from edgeexit.bundle.paths import check_plain, fsync_directory
from edgeexit.bundle.secret_key import SecretKey
from edgeexit.bundle.sign import sign_manifest, write_signature
from edgeexit.bundle.store import DIGEST_FILE, Bundle, digest_line, open_bundle
from edgeexit.bundle.trust import Trust
from edgeexit.errors import BundleError

GOLDEN_FILE = "golden/golden.safetensors"


def model_blob(data: bytes) -> Blob:
    """The entry of a model file, addressed by its content."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Blob(file=blob_path(sha256), sha256=sha256, size_bytes=len(data))


def golden_blob(data: bytes) -> Blob:
    """The entry of the golden vectors."""
    return Blob(file=GOLDEN_FILE, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def write_bundle(
    out: Path, manifest: Manifest, files: Mapping[str, bytes], *, replace: bool = False
) -> Bundle:
    """Write a bundle beside `out`, verify it there, and rename it into place.

    `files` holds the content of every blob of the manifest, by its `file`. The same bundle already at
    `out` is left alone; another one is replaced only where `replace` says so, and what is no bundle
    never.
    Raises: BundleError and its leaves; nothing is then left at or beside `out` that was not there.
    """
    digest = digest_of(manifest)
    standing = _standing(out, digest, replace=replace)
    if standing is not None:
        return standing
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    except OSError as error:
        raise BundleError(f"{out} cannot be written", file=str(out), why=str(error)) from error
    try:
        draft.chmod(0o755)  # mkdtemp makes 0700: a daemon under another user must be able to read it
        for file in dict.fromkeys(blob.file for blob in manifest.blobs()):
            if file not in files:
                raise BundleError(f"{file} was not given", file=file, why="the manifest names it")
            _write(draft, file, files[file])
        _write(draft, DIGEST_FILE, digest_line(digest))
        _write(draft, MANIFEST_FILE, encode_manifest(manifest))
        for directory in [draft, *(entry for entry in draft.rglob("*") if entry.is_dir())]:
            fsync_directory(directory)
        open_bundle(draft, expected_digest=digest).golden()
        _switch(draft, out)
    except OSError as error:
        raise BundleError(f"{out} cannot be written", file=str(out), why=str(error)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Bundle(path=out.resolve(), manifest=manifest, digest=digest)


def sign_bundle(bundle: Bundle, key: SecretKey, *, unix_s: int) -> Bundle:
    """Sign a verified bundle in place; an older signature is replaced, the digest stays what it is.

    Units: unix_s, wall time, stated in the signature alone.
    Raises: MissingExtra, BundleError; the bundle is then as it was.
    """
    data = encode_manifest(bundle.manifest)
    write_signature(bundle.path, sign_manifest(data, bundle.manifest, key, unix_s=unix_s))
    return open_bundle(bundle.path, expected_digest=bundle.digest, trust=Trust((key.public,)))


def require_room(out: Path) -> bool:
    """Refuse a place that holds what is no bundle; whether something, a bundle or its ruin, is there.

    Raises: BundleError.
    """
    if not os.path.lexists(out):
        return False
    fix = "choose another place, or move it away"
    if out.is_symlink() or not out.is_dir():
        raise BundleError(f"{out} is in the way", file=str(out), why="it is not a directory", fix=fix)
    if not any(out.iterdir()):
        return False
    if not (out / MANIFEST_FILE).is_file():
        why = "it holds something else than a bundle"
        raise BundleError(f"{out} is in the way", file=str(out), why=why, fix=fix)
    return True


def _standing(out: Path, digest: str, *, replace: bool) -> Bundle | None:
    """The same bundle where it already stands at `out`; None where there is room for it."""
    if not require_room(out):
        return None
    try:
        standing = open_bundle(out)
    except BundleError:
        standing = None  # a damaged bundle is another bundle
    if standing is not None and standing.digest == digest:
        return standing
    if not replace:
        raise BundleError(
            f"{out} is in the way",
            file=str(out),
            why="another bundle, or a damaged one, is there",
            fix="choose another place, or ask for it to be replaced",
        )
    return None


def _write(root: Path, file: str, data: bytes) -> None:
    check_plain(file)
    place = root / file
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _switch(draft: Path, out: Path) -> None:
    """Put `draft` where `out` is; a directory cannot be renamed over a full one, so it steps aside."""
    aside = draft.with_name(draft.name + ".old")
    if out.exists():
        out.rename(aside)
    try:
        draft.rename(out)
    except OSError:
        if aside.exists():
            aside.rename(out)
        raise
    fsync_directory(out.parent)
    shutil.rmtree(aside, ignore_errors=True)
