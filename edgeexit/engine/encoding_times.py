"""Times of codecs, remembered: what was measured for a bundle on this board holds for its next start too."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import msgspec

from edgeexit.bundle.store import Bundle
from edgeexit.engine.encodings import CodecTime, measure_encodings
from edgeexit.runner.loading import find_runtimes
from edgeexit.runner.machine import machine_name
from edgeexit.runner.packing import Packers
from edgeexit.runner.protocol import Clock, Runner
from edgeexit.runner.report import read_kept, write_kept
from edgeexit.transport.storage import abilities

# Raise it when codecs are timed otherwise: times of another number are not believed.
TIMES_SCHEMA = 1


class CodecTimesKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What times of codecs hold for; for anything else they are measured anew.

    `able` are the kinds of storage that are installed, and the packers that proved correct here.
    """

    schema: int
    bundle_digest: str
    runtime: str
    runtime_version: str
    machine: str
    threads: int
    able: tuple[str, ...]


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: CodecTimesKey
    times: tuple[CodecTime, ...]


def remembered_encodings(
    bundle: Bundle,
    runner: Runner,
    *,
    packing: Packers,
    threads: int,
    clock: Clock,
    cache: Path | None,
) -> tuple[CodecTime, ...]:
    """`measure_encodings`, or what it found before for the same bundle, runtime and board, kept at `cache`.

    Raises: RunnerError where a stage fails, MissingExtra.
    """
    if cache is None:
        return measure_encodings(bundle, runner, packing=packing, clock=clock)
    runtimes = find_runtimes(bundle.manifest)
    key = CodecTimesKey(
        schema=TIMES_SCHEMA,
        bundle_digest=bundle.digest,
        runtime=runtimes.name,
        runtime_version=runtimes.version,
        machine=machine_name(),
        threads=threads,
        able=(*sorted(abilities()), *sorted(f"{codec}@{boundary}" for boundary, codec in packing.codecs)),
    )
    known = _read(cache, key)
    if known is not None:
        return known
    times = measure_encodings(bundle, runner, packing=packing, clock=clock)
    write_kept(cache, msgspec.json.encode(_Kept(key, times)))
    return times


def _read(path: Path, key: CodecTimesKey) -> tuple[CodecTime, ...] | None:
    """The times kept at `path`, where they are sound and hold for `key`; else None."""
    try:
        kept = msgspec.json.decode(read_kept(path), type=_Kept)
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    taken = [ms for time in kept.times for ms in (time.encode_ms, time.decode_ms) if ms is not None]
    sound = all(isfinite(ms) and ms >= 0.0 for ms in taken)
    return kept.times if kept.key == key and sound else None
