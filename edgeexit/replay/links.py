"""Links of a scenario: traces of files with the delays that suit them, and links made here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeexit.errors import TraceError
from edgeexit.replay.delays import LTE_EDGE, WIFI_CLOUD, WIFI_EDGE, LinkDelay
from edgeexit.replay.formats.steps import Steps
from edgeexit.replay.traces import LinkTrace, read_trace, trace_files

# Public traces are mostly downlinks. Uplinks of mobile networks are slower; a third is an assumption,
# and it stands beside every figure that rests on it.
DOWNLINK_SCALE = 1.0 / 3.0
# Wi-Fi in bits per second as the field sees it at the edge of a flat, and its deep short dips.
_WIFI_BYTES_PER_MS = 30e6 / 8000.0
_WIFI_STEP_MS = 50.0
# Ten minutes, then it repeats.
_WIFI_STEPS = 12_000


@dataclass(frozen=True, slots=True)
class Link:
    """A link by name. `development` says that constants may be tuned on it, and no figure rests on it."""

    name: str
    trace: LinkTrace
    delay: LinkDelay
    development: bool = False


def wifi_30(seed: int = 0) -> Link:
    """Wi-Fi of 30 Mbit/s: log-AR(1) (0.97, deviation 0.11), dips to a twentieth in 0.4 % of 50 ms steps."""
    random = np.random.default_rng([seed, 30])
    level = 0.0
    carried: list[float] = []
    dips = (random.random(_WIFI_STEPS) < 0.004).tolist()
    for noise, dip in zip(random.standard_normal(_WIFI_STEPS).tolist(), dips, strict=True):
        level = 0.97 * level + 0.11 * noise
        rate = _WIFI_BYTES_PER_MS * float(np.exp(level)) * (0.05 if dip else 1.0)
        carried.append(rate * _WIFI_STEP_MS)
    edges_ms = tuple(_WIFI_STEP_MS * index for index in range(_WIFI_STEPS + 1))
    return Link("wifi-30", LinkTrace("wifi-30", Steps(edges_ms, tuple(carried))), WIFI_EDGE)


def unlimited() -> Link:
    """A wired link: a gigabit a second."""
    return Link("unlimited", LinkTrace("unlimited", Steps((0.0, 1000.0), (125e6,))), WIFI_EDGE)


def is_uplink(path: Path) -> bool:
    """Whether a file's name says that it was measured on the uplink: `.up`, or `up` among its words."""
    words = path.stem.lower().replace("-", " ").replace("_", " ").replace(".", " ").split()
    return path.suffix == ".up" or "up" in words or "uplink" in words


def delay_for(path: Path) -> LinkDelay:
    """Delays that suit a trace, by the words of its path: mobile networks unless it says otherwise."""
    words = str(path).lower()
    return WIFI_CLOUD if any(word in words for word in ("oboe", "wifi", "fcc", "cable")) else LTE_EDGE


def read_links(folder: Path, *, downlink_scale: float = DOWNLINK_SCALE) -> list[Link]:
    """The links of a folder of traces; uplinks as they are, all others scaled.

    Of the traces of one folder every second one by name, the first included, is for development.
    A folder of a single trace keeps it for evaluation. Raises: TraceError with file and line.
    """
    links: list[Link] = []
    by_folder: dict[Path, list[Path]] = {}
    for path in trace_files(folder):
        by_folder.setdefault(path.parent, []).append(path)
    for paths in by_folder.values():
        for index, path in enumerate(paths):
            scale = 1.0 if is_uplink(path) else downlink_scale
            label = path.name if path == folder else path.relative_to(folder).as_posix()
            links.append(
                Link(
                    name=label,
                    trace=read_trace(path, scale=scale),
                    delay=delay_for(path),
                    development=index % 2 == 0 and len(paths) > 1,
                )
            )
    return links


def by_part(links: Sequence[Link], *, development: bool, per_folder: int | None) -> list[Link]:
    """The links of one part, at most `per_folder` of each folder, those in the middle of its rates.

    Raises: TraceError when none is left.
    """
    folders: dict[str, list[Link]] = {}
    for link in links:
        if link.development is development:
            folders.setdefault(link.name.rpartition("/")[0], []).append(link)
    chosen: list[Link] = []
    for group in folders.values():
        ranked = sorted(group, key=lambda link: link.trace.mean_bps)
        count = len(ranked) if per_folder is None else min(per_folder, len(ranked))
        chosen.extend(ranked[(2 * index + 1) * len(ranked) // (2 * count)] for index in range(count))
    if not chosen:
        raise TraceError("no trace is left for this part", file="traces", fix="give more traces")
    return chosen
