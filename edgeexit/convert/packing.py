"""Adding packers to a bundle: lowered, proved against the float modules, and measured like any codec.

Requires: a bundle, packers of its boundaries, and images held out of all training.
Ensures: another bundle, its stages the same, with the packers' files, their bytes and what they cost.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import structs

from edgeexit.bundle.manifest import Boundary, BoundaryCodec, Manifest, Packer
from edgeexit.bundle.store import Bundle
from edgeexit.bundle.write import write_bundle
from edgeexit.convert.packer_costs import measure_packers
from edgeexit.convert.packer_files import make_files
from edgeexit.convert.plan import LabelledSet, evenly
from edgeexit.errors import ConfigError
from edgeexit.models.packers import PackerModules
from edgeexit.runner.litert import LiteRTRunner
from edgeexit.runner.protocol import Runner, Tensors
from edgeexit.transport.codecs import abilities_for
from edgeexit.transport.storage import require_abilities

# Of the bundle's golden vectors, so many prove a packer: models of a few layers.
GOLDEN_VECTORS = 4


class MadePackers(msgspec.Struct, frozen=True):
    """The packers of one boundary: what the manifest says of them, and their files by name."""

    packers: tuple[Packer, ...]
    codecs: tuple[BoundaryCodec, ...]
    files: dict[str, bytes]


def add_packers(
    bundle: Bundle,
    packers: Sequence[PackerModules],
    labelled: LabelledSet,
    *,
    out: Path,
    samples: int = 500,
    error_scale: float = 1.0,
    replace: bool = False,
    tell: Callable[[int], None] = lambda done: None,
) -> Bundle:
    """A bundle at `out` with these packers beside its codecs; `bundle` itself is left as it is.

    Packers that it already has for a boundary are kept, those of the same name replaced. A compressed form
    is offered only where it saves enough. `tell` learns how many images are done, boundary by boundary.
    Shapes: images (n, C, H, W). Raises: LoweringError, MissingExtra, BundleError, RunnerError, ConfigError.
    """
    made = {
        boundary: make_packers(
            bundle,
            boundary,
            [each for each in packers if each.boundary == boundary],
            labelled,
            samples=samples,
            error_scale=error_scale,
            tell=tell,
        )
        for boundary in sorted({each.boundary for each in packers})
    }
    described = with_packers(bundle.manifest, made)
    files = {name: data for each in made.values() for name, data in each.files.items()}
    for blob in described.blobs():
        if blob.file not in files:
            files[blob.file] = bundle.blob_path(blob).read_bytes()
    return write_bundle(
        out, described, {blob.file: files[blob.file] for blob in described.blobs()}, replace=replace
    )


def make_packers(
    bundle: Bundle,
    boundary: int,
    packers: Sequence[PackerModules],
    labelled: LabelledSet,
    *,
    samples: int,
    error_scale: float,
    tell: Callable[[int], None] = lambda done: None,
) -> MadePackers:
    """The packers of one boundary of a bundle, lowered, proved and measured.

    Raises: LoweringError, MissingExtra, BundleError, RunnerError, ConfigError.
    """
    manifest = bundle.manifest
    if not 1 <= boundary < manifest.stage_count:
        raise ConfigError("packer is refused", key="boundary", why=f"{boundary} holds no tokens")
    needed = [abilities_for(codec, boundary) for each in packers for codec in each.codecs]
    plain = frozenset(each for each in frozenset().union(*needed) if "@" not in each)
    require_abilities(plain, needed_for="measuring codecs")
    with (
        tempfile.TemporaryDirectory(prefix="edgeexit-packers-") as folder,
        LiteRTRunner(
            bundle, {k: stage.variants[0].name for k, stage in enumerate(manifest.stages)}
        ) as runner,
    ):
        golden = bundle.golden()
        count = min(GOLDEN_VECTORS, golden.count)
        states = [_state(runner, golden.sample(row), boundary) for row in range(count)]
        files = [make_files(bundle, runner, each, states, Path(folder)) for each in packers]
        chosen = evenly(len(labelled.images), samples)
        measured = measure_packers(
            runner, boundary, files, labelled, chosen, manifest, error_scale=error_scale, tell=tell
        )
    offered = [
        structs.replace(one.packer, codecs=tuple(codec for codec in one.packer.codecs if codec in measured))
        for one in files
    ]
    return MadePackers(
        packers=tuple(offered),
        codecs=tuple(measured[codec] for packer in offered for codec in packer.codecs),
        files={name: data for one in files for name, data in one.files.items()},
    )


def with_packers(manifest: Manifest, made: Mapping[int, MadePackers]) -> Manifest:
    """The manifest with these packers, by boundary, and what is known of their codecs."""
    return structs.replace(
        manifest,
        boundaries=tuple(
            _boundary(boundary, made[index]) if index in made else boundary
            for index, boundary in enumerate(manifest.boundaries)
        ),
    )


def _state(runner: Runner, tensors: Tensors, boundary: int) -> Tensors:
    """The tensors of a boundary."""
    for stage in range(boundary):
        tensors = runner.run(stage, tensors).boundary
    return tensors


def _boundary(boundary: Boundary, made: MadePackers) -> Boundary:
    names = {packer.name for packer in made.packers}
    before = boundary.packers or ()
    replaced = {
        codec for packer in (*before, *made.packers) if packer.name in names for codec in packer.codecs
    }
    return structs.replace(
        boundary,
        codecs=(*(codec for codec in boundary.codecs if codec.codec not in replaced), *made.codecs),
        packers=(*(packer for packer in before if packer.name not in names), *made.packers),
    )
