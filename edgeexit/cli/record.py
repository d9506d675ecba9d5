"""`edgeexit record`: what every exit and every way of offloading says about images, once, for replays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeexit.cli.present import command, show_json

if TYPE_CHECKING:
    from edgeexit.replay.recording import RecordedOption


@dataclass(frozen=True, slots=True)
class RecordSummary:
    """What was recorded, as `--json` prints it. Shapes: variants, exit_quality, stage_ms (K,)."""

    out: str
    bundle: str
    samples: int
    variants: tuple[str, ...]
    exit_quality: tuple[float, ...]
    stage_ms: tuple[float, ...]
    payloads: tuple[RecordedOption, ...]


@command
def record(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    images: Annotated[
        Path, typer.Argument(help="Folder of labelled images that the bundle was not calibrated on.")
    ],
    out: Annotated[Path, typer.Option(help="Where the recording goes: FILE.safetensors.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many images, spread evenly by name.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="What the images are, for reports; the folder's name without.")
    ] = None,
    error_scale: Annotated[
        float | None, typer.Option(help="Regression only: the error that makes an answer worth nothing.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Run every exit and every payload of a bundle on labelled images, and keep all answers in one file."""
    import msgspec

    from edgeexit.bundle.store import open_bundle
    from edgeexit.cli.bar import Bar
    from edgeexit.cli.image_folders import labelled_folder, some_of
    from edgeexit.replay.record import labelled_images
    from edgeexit.replay.record import record as run_all
    from edgeexit.replay.recording import save_recording
    from edgeexit.runner.selection import monotonic_ms, open_verified

    opened = open_bundle(bundle)
    out.parent.mkdir(parents=True, exist_ok=True)  # found out before the work, not after
    truth = some_of(labelled_folder(images, opened.manifest.labels), limit)
    runner, _ = open_verified(opened)
    try:
        with Bar("recording", len(truth)) as bar:
            recording = run_all(
                opened,
                labelled_images(images, truth),
                runner,
                data=data or images.resolve().name,
                clock=monotonic_ms,
                error_scale=error_scale,
                progress=bar.show,
            )
    finally:
        runner.close()
    save_recording(recording, out)
    quality = [float(column.mean()) for column in recording.quality.T]
    if as_json:
        summary = RecordSummary(
            out=str(out),
            bundle=recording.note.bundle_digest,
            samples=recording.sample_count,
            variants=recording.note.variants,
            exit_quality=tuple(round(share, 6) for share in quality),
            stage_ms=recording.note.stage_ms,
            payloads=recording.note.options,
        )
        show_json(msgspec.json.encode(summary))
        return
    for exit_, (share, stage_ms) in enumerate(zip(quality, recording.note.stage_ms, strict=True)):
        typer.echo(
            f"exit {exit_}: quality {share:.4f}, stage {stage_ms:.3f} ms ({recording.note.variants[exit_]})"
        )
    typer.echo(f"{recording.sample_count:,} samples, {len(recording.note.options)} ways of offloading: {out}")
