"""What the study of decisions is made of: recorded answers, links and boards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgeexit.board.profile import read_profile
from edgeexit.bundle import open_bundle
from edgeexit.errors import EdgeExitError
from edgeexit.replay.links import Link, by_part, read_links, unlimited, wifi_30
from edgeexit.replay.record import labelled_images, read_truth, record
from edgeexit.replay.recorded_run import profile_of
from edgeexit.replay.recording import Recording, load_recording, save_recording
from edgeexit.replay.scenarios import PI_4_MS, PI_5_MS, Board, vit_tiny
from edgeexit.runner.selection import monotonic_ms, open_verified

CHECKOUT = Path(__file__).resolve().parents[1]
DEMO = CHECKOUT / "build" / "demo"
# Traces that lie beside a checkout; they belong to others and are not part of it.
BESIDE = CHECKOUT.parent / "shared" / "traces"
# Enough that an exit's accuracy is known to about one point.
SAMPLES = 2000


def recording_at(path: Path, say: Callable[[str, bool], None]) -> Recording:
    """The recording asked for; the demo's own is made anew where it is not of the demo's present bundle."""
    own = path == DEMO / "recording.safetensors" and (DEMO / "bundle").is_dir()
    if not own:
        if path.is_file():
            return load_recording(path)
        raise EdgeExitError(
            f"no recording at {path}",
            why="neither the file nor the demo's bundle is there",
            fix="run `make demo` first, or: edgeexit record BUNDLE IMAGES --out FILE",
        )
    bundle = open_bundle(DEMO / "bundle")
    if path.is_file():
        kept = load_recording(path)
        if kept.note.bundle_digest == bundle.digest:
            return kept
    truth = read_truth(DEMO / "images", bundle.manifest.labels)
    names = sorted(truth)
    chosen = {name: truth[name] for name in names[:: max(1, len(names) // SAMPLES)][:SAMPLES]}
    runner, _ = open_verified(bundle)
    with runner:
        recording = record(
            bundle,
            labelled_images(DEMO / "images", chosen),
            runner,
            data=f"{len(chosen)} of the demo's {len(names)} test images",
            clock=monotonic_ms,
            progress=lambda done: say(f"recording {done}/{len(chosen)}", done % 200 == 0),
        )
    save_recording(recording, path)
    return recording


def links_of(traces: Path | None, *, development: bool, full: bool) -> tuple[Sequence[Link], tuple[str, ...]]:
    """The links of this run, and the names of all development traces."""
    made = [wifi_30(), unlimited()]
    folder = traces or (BESIDE if BESIDE.is_dir() else None)
    if folder is None:
        return made, ()
    everything = read_links(folder)
    named = tuple(link.name for link in everything if link.development)
    if traces is not None and not development:
        # Traces given from outside were never tuned on: all of them count.
        return [*everything, *made], ()
    chosen = by_part(everything, development=development, per_folder=None if full else 1)
    return [*chosen, *made], named


def boards_of(recording: Recording) -> list[Board]:
    """ViT-Tiny at published times, and the recorded network itself slowed to a Pi 4."""
    slowdown = read_profile("raspberry-pi-4").slowdown
    factor = 1.0 if slowdown is None else slowdown.factor
    stage_ms = [factor * each for each in recording.note.stage_ms]
    own = profile_of(recording, "demo", stage_ms, recording.note.stage_ms, encode_factor=factor)
    return [
        Board("vit-tiny-pi-4", vit_tiny(recording, "raspberry-pi-4", PI_4_MS)),
        Board("vit-tiny-pi-5", vit_tiny(recording, "raspberry-pi-5", PI_5_MS), "wide"),
        Board("demo-pi-4", own, "wide"),
    ]
