"""What this device can make of a boundary to send, and what making it costs here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeexit.bundle.store import Bundle
from edgeexit.device.clock import monotonic_ms
from edgeexit.engine.encoding_times import remembered_encodings
from edgeexit.runner.packing import Packers, open_packing
from edgeexit.runner.protocol import Runner

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Payloads:
    """The packers that proved correct here, and what each codec takes. Units: encode_ms."""

    packing: Packers
    encode_ms: Mapping[tuple[int, str], float]


def make_payloads(bundle: Bundle, runner: Runner, *, threads: int, cache: Path | None = None) -> Payloads:
    """Prove the packers of a bundle and time its codecs, or find their times at `cache`.

    Raises: RunnerError, BundleError, MissingExtra.
    """
    packing = open_packing(bundle, runner, threads=threads)
    for rejected in packing.rejected:
        _log.warning(
            "boundary %d, packer %s is not used: %s", rejected.boundary, rejected.packer, rejected.why
        )
    times = remembered_encodings(
        bundle, runner, packing=packing, threads=threads, clock=monotonic_ms, cache=cache
    )
    return Payloads(packing, {(each.boundary, each.codec): each.encode_ms for each in times})
