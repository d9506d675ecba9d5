"""The bundles that a gateway serves: every valid one in a directory, looked at again as it changes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgeexit.bundle.store import Bundle, open_bundle
from edgeexit.bundle.trust import Trust
from edgeexit.errors import BundleError, ConfigError

# A bundle of 24 stages in three variants has about 80 files; a directory far beyond that is something else,
# and looking at every file of it once a second would cost more than serving.
FILES_LOOKED_AT = 1_024
# Entries of the store that are looked at, sixteen times the default limit of bundles.
DIRECTORIES_LOOKED_AT = 256

Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A directory that is not served, and why."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class StoreChange:
    """What one look at the directory changed."""

    added: tuple[Bundle, ...]
    removed: tuple[Bundle, ...]
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A directory as it was when it was last opened; `bundle` is None when it was no valid one."""

    fingerprint: Fingerprint
    bundle: Bundle | None


class BundleStore:
    """A directory of bundles, or one bundle alone, by digest.

    `scan` opens only what changed since the last look: a bundle that was copied halfway is rejected, and
    opened again when more of it has come. A bad bundle, or one by nobody trusted, is reported once and
    harms no other.
    Not locked: one thread scans; `bundles` is replaced whole and may be read by all.
    """

    def __init__(self, path: Path, *, bundle_limit: int, trust: Trust | None = None) -> None:
        self._path = path
        self._trust = trust
        self._bundle_limit = bundle_limit
        self._seen: dict[Path, _Seen] = {}
        self._bundles: Mapping[str, Bundle] = {}
        self._crowded: frozenset[Path] = frozenset()

    @property
    def bundles(self) -> Mapping[str, Bundle]:
        """The valid bundles, by full digest."""
        return self._bundles

    def scan(self) -> StoreChange:
        """Look at the directory again.

        Raises: ConfigError when there is no such directory; what was known stays.
        """
        rejected: list[Rejected] = []
        seen: dict[Path, _Seen] = {}
        for directory in self._directories():
            fingerprint = _fingerprint(directory)
            known = self._seen.get(directory)
            if known is not None and known.fingerprint == fingerprint:
                seen[directory] = known
                continue
            bundle, why = _open(directory, self._trust)
            seen[directory] = _Seen(fingerprint, bundle)
            if why is not None:
                rejected.append(Rejected(directory, why))
        self._seen = seen
        bundles = self._within_limit(seen, rejected)
        before = self._bundles
        self._bundles = bundles
        return StoreChange(
            added=tuple(bundle for digest, bundle in bundles.items() if digest not in before),
            removed=tuple(bundle for digest, bundle in before.items() if digest not in bundles),
            rejected=tuple(rejected),
        )

    def _within_limit(self, seen: Mapping[Path, _Seen], rejected: list[Rejected]) -> dict[str, Bundle]:
        """The bundles to serve; those served before come first, so that a new one never evicts one."""
        valid = [(path, entry.bundle) for path, entry in seen.items() if entry.bundle is not None]
        valid.sort(key=lambda pair: pair[1].digest not in self._bundles)
        bundles: dict[str, Bundle] = {}
        crowded: set[Path] = set()
        for path, bundle in valid:
            if bundle.digest in bundles:
                continue
            if len(bundles) < self._bundle_limit:
                bundles[bundle.digest] = bundle
                continue
            crowded.add(path)
            if path not in self._crowded:
                rejected.append(Rejected(path, f"more than bundle_limit = {self._bundle_limit} bundles"))
        self._crowded = frozenset(crowded)
        return bundles

    def _directories(self) -> list[Path]:
        """Where bundles may lie: the store itself when it is one, and the directories in it."""
        try:
            with os.scandir(self._path) as entries:
                names = sorted(
                    entry.name
                    for entry in islice(entries, DIRECTORIES_LOOKED_AT)
                    if not entry.name.startswith(".") and os.path.isdir(entry.path)
                )
        except OSError as error:
            raise ConfigError(
                f"no bundle store at {self._path}",
                key="store",
                why=error.strerror,
                fix="name a directory that holds bundles",
            ) from error
        own = [self._path] if (self._path / "manifest.json").is_file() else []
        return own or [self._path / name for name in names]


def _open(directory: Path, trust: Trust | None) -> tuple[Bundle | None, str | None]:
    """The bundle in a directory, or why it is not served."""
    try:
        return open_bundle(directory, trust=trust), None
    except BundleError as error:
        return None, str(error)


def _fingerprint(directory: Path) -> Fingerprint:
    """What tells an unchanged directory from a changed one without reading its files."""
    files: list[tuple[str, int, int, int]] = []
    for root, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            place = os.path.join(root, name)
            try:
                status = os.stat(place)
            except OSError:
                continue  # gone between listing and looking: the next scan sees it gone
            files.append((place, status.st_ctime_ns, status.st_size, status.st_ino))
            if len(files) >= FILES_LOOKED_AT:
                return tuple(files)
    return tuple(files)
