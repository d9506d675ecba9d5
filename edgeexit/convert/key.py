"""What a conversion is a function of, as one digest; and the report of one that is already done.

The report lies beside the bundle, not in it: a bundle is immutable and named by its digest.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import nn

import edgeexit
from edgeexit.bundle.store import open_bundle
from edgeexit.convert.plan import ConversionPlan, LabelledSet
from edgeexit.convert.report import ConversionReport, decode_report, encode_report
from edgeexit.errors import BundleError
from edgeexit.models.protocol import MultiExitNetwork

# The code that decides what a bundle says; networks are known by their weights and their own source.
_DECISIVE_FILES = (
    "bundle/*.py",
    "convert/*.py",
    "decide/calibration.py",
    "decide/evidence.py",
    "decide/risk.py",
    "models/merging.py",
    "models/packed_state.py",
    "models/packers.py",
    "models/windows.py",
    "training/bottleneck*.py",
    "transport/affine.py",
    "transport/codecs.py",
    "transport/storage.py",
)

_REPORT_CAP_BYTES = 16 * 2**20


def runtime_tools() -> tuple[str, ...]:
    """This package, what it computes with, and the runtime that parity was shown with."""
    return (
        f"edgeexit {edgeexit.__version__}",
        f"python {platform.python_version()}",
        f"numpy {np.__version__}",
        f"ai-edge-litert {version('ai-edge-litert')}",
    )


def weights_digest(network: MultiExitNetwork) -> str:
    """SHA-256 over all weights and the structure that they fill."""
    digest = hashlib.sha256()
    for index, stage in enumerate(network.stages):
        digest.update(f"{index} ".encode())
        _add_stage(digest, stage)
    return digest.hexdigest()


def stage_digest(stage: nn.Module) -> str:
    """SHA-256 over the weights of one stage and their structure."""
    digest = hashlib.sha256()
    _add_stage(digest, stage)
    return digest.hexdigest()


def _add_stage(digest: hashlib._Hash, stage: nn.Module) -> None:
    # The structure as torch prints it, so that a changed activation or kernel size is seen too.
    digest.update(repr(stage).encode())
    for name, tensor in (*stage.named_parameters(), *stage.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_bytes_of(tensor.detach().cpu().numpy()))


def data_digest(labelled: LabelledSet) -> str:
    """SHA-256 over images and their answers, in their order."""
    digest = hashlib.sha256()
    for array in (labelled.images, labelled.targets):
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(_bytes_of(array))
    return digest.hexdigest()


def conversion_key(
    network: MultiExitNetwork,
    plan: ConversionPlan,
    tools: tuple[str, ...],
    calibration: LabelledSet,
    test: LabelledSet | None,
    learning: str = "",
) -> str:
    """SHA-256 over weights, code, plan, tools and data; `learning` names what bottlenecks learn from."""
    digest = hashlib.sha256()
    # How many threads did the work changes nothing in the result.
    digest.update(msgspec.json.encode((replace(plan, workers=None), tools)))
    digest.update(weights_digest(network).encode())
    for path in _sources(network):
        digest.update(path.read_bytes())
    for labelled in (calibration, test):
        digest.update(b"none" if labelled is None else data_digest(labelled).encode())
    digest.update(learning.encode())
    return digest.hexdigest()


def steps_base(network: MultiExitNetwork, tools: tuple[str, ...]) -> str:
    """SHA-256 over what every step of a conversion depends on: code and tools."""
    digest = hashlib.sha256(msgspec.json.encode(tools))
    for path in _sources(network):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def arrays_digest(tensors: Mapping[str, NDArray[np.generic]]) -> str:
    """SHA-256 over named arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(_bytes_of(array))
    return digest.hexdigest()


def report_path(out: Path) -> Path:
    """Where the report of the bundle at `out` lies."""
    return out.with_name(f"{out.name}.report.json")


def finished(out: Path, key: str) -> ConversionReport | None:
    """The report of a conversion with this key whose bundle still stands at `out`, whole; else None."""
    place = report_path(out)
    try:
        if place.stat().st_size > _REPORT_CAP_BYTES:
            return None
        report = decode_report(place.read_bytes())
    except OSError:
        return None
    if report is None or report.key != key:
        return None
    try:
        open_bundle(out, expected_digest=report.digest)
    except BundleError:
        return None
    return report.found_again()


def store_report(out: Path, report: ConversionReport) -> None:
    """Write the report beside the bundle, whole or not at all.

    Raises: BundleError.
    """
    place = report_path(out)
    part = place.with_name(f"{place.name}.part")
    try:
        part.write_bytes(encode_report(report))
        part.replace(place)
    except OSError as error:
        raise BundleError(f"{place} cannot be written", file=str(place), why=str(error)) from error


def _bytes_of(array: NDArray[np.generic]) -> memoryview:
    """The array's bytes, copied only where they do not lie in one piece."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _sources(network: MultiExitNetwork) -> list[Path]:
    """The decisive files, and those that define the network's own modules."""
    root = Path(edgeexit.__file__).parent
    files = {path for pattern in _DECISIVE_FILES for path in root.glob(pattern)}
    for module in (module for stage in network.stages for module in stage.modules()):
        file = _defining_file(type(module))
        if file is not None:
            files.add(file)
    return sorted(files)


def _defining_file(kind: type) -> Path | None:
    """The file that a class comes from.

    None for torch's own, whose version is among the tools, and for classes typed into a session.
    """
    if kind.__module__.partition(".")[0] == "torch":
        return None
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return None if file is None else Path(file)
