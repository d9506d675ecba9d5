"""Bundles: the typed description, and opening, verifying and writing the directory it describes."""

from edgeexit.bundle.encoding import digest_of, encode_manifest
from edgeexit.bundle.golden import GoldenVectors, encode_golden
from edgeexit.bundle.manifest import Manifest
from edgeexit.bundle.store import Bundle, open_bundle
from edgeexit.bundle.trust import Trust
from edgeexit.bundle.write import golden_blob, model_blob, sign_bundle, write_bundle

__all__ = [
    "Bundle",
    "GoldenVectors",
    "Manifest",
    "Trust",
    "digest_of",
    "encode_golden",
    "encode_manifest",
    "golden_blob",
    "model_blob",
    "open_bundle",
    "sign_bundle",
    "write_bundle",
]
