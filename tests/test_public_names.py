"""The names that others build on: adding one is a decision, losing one breaks somebody."""

from __future__ import annotations

import inspect

import edgeexit
import edgeexit.bundle
import edgeexit.engine
import edgeexit.errors
from edgeexit.cli.main import build

BUNDLE = {
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
}
ENGINE = {"Engine", "Frame"}
ERRORS = {
    "BrokerError",
    "BundleError",
    "CannotCut",
    "ConfigError",
    "ConvertError",
    "DataError",
    "DeployError",
    "DeviceError",
    "EdgeExitError",
    "GatewayRefused",
    "IntegrityError",
    "KeyFileError",
    "LinkDown",
    "OffloadCancelled",
    "LoweringError",
    "ManifestError",
    "MissingExtra",
    "MissingFile",
    "MissingProgram",
    "NoCredit",
    "NotSigned",
    "OffloadError",
    "OffloadTimeout",
    "OlderSerial",
    "ParityError",
    "RunnerError",
    "ShapeError",
    "SignatureError",
    "ToolError",
    "TraceError",
    "TrainingDiverged",
    "UnsafeModel",
    "UnsafePath",
    "UnsupportedModel",
    "VariantRejected",
    "WireError",
}
GROUPS = {
    "bundle": {"card", "diff", "inspect", "sign", "verify"},
    "keys": {"generate", "list", "show", "trust"},
}
VERBS = {
    "bench",
    "convert",
    "demo",
    "device",
    "evaluate",
    "flash",
    "gateway",
    "inspect",
    "plan",
    "record",
    "run",
    "simulate",
    "train",
}


def test_the_root_has_a_version() -> None:
    assert edgeexit.__version__.count(".") == 2


def test_bundle_names() -> None:
    assert set(edgeexit.bundle.__all__) == BUNDLE
    assert all(hasattr(edgeexit.bundle, name) for name in BUNDLE)


def test_engine_names() -> None:
    assert set(edgeexit.engine.__all__) == ENGINE
    assert all(hasattr(edgeexit.engine, name) for name in ENGINE)


def test_error_names() -> None:
    kinds = {name for name, kind in vars(edgeexit.errors).items() if inspect.isclass(kind)}
    assert kinds == ERRORS
    drawn = edgeexit.errors.__doc__ or ""
    assert all(name in drawn for name in ERRORS)


def test_verbs() -> None:
    assert {each.name for each in build().registered_commands} == VERBS
    groups = {each.name: each.typer_instance for each in build().registered_groups}
    assert set(groups) == set(GROUPS)
    for name, group in groups.items():
        assert group is not None
        assert {each.name for each in group.registered_commands} == GROUPS[str(name)]
