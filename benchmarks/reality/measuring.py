"""Stage times measured in isolation, in the very process environment in which the device will run.

    python -m benchmarks.reality.measuring REQUEST

REQUEST is JSON; the last line printed is the answer. Whoever asks decides in which namespace and control
group this runs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from edgeexit.bundle.store import open_bundle
from edgeexit.device.clock import processor_ms
from edgeexit.device.config import DeviceConfig, PlayConfig, SourceConfig
from edgeexit.device.parts import SELECTION_FILE, find_profile, make_runner, played_board
from edgeexit.runner.paced import LARGEST_FACTOR
from edgeexit.runner.preprocess import input_tensors, read_image
from edgeexit.runner.protocol import Tensors
from edgeexit.runner.selection import open_verified

# No particular board: nothing of a profile but one thread is used.
BOARD = "generic-linux"
# The first frames meet cold caches, as those after a restart do; they are not counted.
WARM_UP = 3


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: `target_ms`, all stages on the board that is played, None for this machine's own.

    Units: pause_share, between frames, of the time that a frame takes.
    """

    bundle: str
    state: str
    images: tuple[str, ...]
    target_ms: float | None
    pause_share: float = 0.5


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Shapes: stage_ms (K,), medians as the daemon will find them in its state folder; samples_ms (N, K), wall
    time of every stage of every frame. `factor` is that of the played board, None without one.
    """

    factor: float | None
    stage_ms: tuple[float, ...]
    samples_ms: tuple[tuple[float, ...], ...]


def measure(request: Request) -> Measured:
    """Run all stages on every image. Raises: BundleError, RunnerError."""
    bundle = open_bundle(Path(request.bundle))
    cache = Path(request.state) / SELECTION_FILE
    factor = None
    if request.target_ms is not None:
        first, report = open_verified(bundle, threads=1, cache=cache, clock=processor_ms)
        first.close()
        factor = min(max(request.target_ms / sum(report.median_ms), 1.0), LARGEST_FACTOR)
    config = DeviceConfig(
        source=SourceConfig(kind="directory", path="."),
        threads=1,
        board=BOARD,
        state=request.state,
        play=PlayConfig(factor=factor),
    )
    profile = find_profile(BOARD)
    runner, stage_ms = make_runner(config, bundle, profile, played_board(config.play), {})
    manifest = bundle.manifest
    samples: list[tuple[float, ...]] = []
    for name in (*request.images[:WARM_UP], *request.images):
        image = read_image(Path(name))
        tensors: Tensors = input_tensors(image, manifest.preprocessing, manifest.boundaries[0].tensors[0])
        times: list[float] = []
        for stage in range(manifest.stage_count):
            began_ms = _monotonic_ms()
            done = runner.run(stage, tensors)
            times.append(_monotonic_ms() - began_ms)
            tensors = done.boundary
        samples.append(tuple(times))
        time.sleep(request.pause_share * sum(times) / 1000.0)
    runner.close()
    return Measured(factor=factor, stage_ms=stage_ms, samples_ms=tuple(samples[WARM_UP:]))


def _monotonic_ms() -> float:
    return time.monotonic_ns() / 1e6


def main() -> None:
    """Measure what the one argument asks for."""
    measured = measure(msgspec.json.decode(sys.argv[1], type=Request))
    print(msgspec.json.encode(measured).decode(), flush=True)


if __name__ == "__main__":
    main()
