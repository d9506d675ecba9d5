"""Sending test canvases: image files, codecs of tokens, and packers as files on the runtime of devices."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks._boundaries_rows import Right, Row, Tally, left_behind
from edgeexit.bundle.manifest import CodecName, TensorSpec
from edgeexit.convert.lowering import lower_module
from edgeexit.convert.packer_files import run_module, specs_of
from edgeexit.models.packers import Bottleneck, PackerModules
from edgeexit.models.protocol import IMAGE, State, run_stage
from edgeexit.models.vit import TOKENS, VisionTransformer
from edgeexit.runner.packing import PackerModel, load_half
from edgeexit.runner.runtime import find_runtime
from edgeexit.training.bottleneck import bits_per_row
from edgeexit.training.data import Samples
from edgeexit.transport.codecs import decode_tensors, encode_tensors, sent_bytes, uncompressed
from edgeexit.transport.storage import Storage
from edgeexit.transport.wire import WireTensor

# The size that an image file has of the image's, and the qualities tried at it.
JPEG_QUALITIES = {1.0: (5, 10, 20, 30, 50, 85), 0.75: (30, 85), 0.5: (10, 30, 85)}
WEBP_QUALITIES = {1.0: (1, 10, 20, 30, 50, 85), 0.75: (30, 50, 85), 0.5: (1, 30, 85)}
SIZES = {1.0: "", 0.75: " at 3/4 size", 0.5: " at half size"}
TOKEN_CODECS: tuple[CodecName, ...] = (
    *("raw", "f16", "int8", "int8-token", "int8-zstd", "int8-lz4"),
    *("int4", "int4-token", "int4-zstd", "int4-lz4", "int4-token-zstd"),
)

Tokens = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LoweredPacker:
    """Both halves of a packer on the runtime, and what travels between them.

    Shapes: levels (values, 16), the prior of a bottleneck's values.
    """

    modules: PackerModules
    specs: tuple[TensorSpec, ...]
    pack: PackerModel
    unpack: PackerModel
    levels: torch.Tensor | None


def lowered(
    modules: PackerModules, tokens: Tokens, folder: Path, bottleneck: Bottleneck | None = None
) -> LoweredPacker:
    """The packer as a bundle holds it, its files in `folder`. Shapes: tokens (1, T, D).

    Raises: LoweringError, MissingExtra, RunnerError.
    """
    boundary = modules.boundary
    packed = run_module(modules.pack.eval(), {TOKENS: tokens})
    whole, sent = specs_of({TOKENS: tokens}), specs_of(packed)
    halves: list[PackerModel] = []
    for module, given, takes, gives in (
        (modules.pack, {TOKENS: tokens}, whole, sent),
        (modules.unpack.eval(), packed, sent, whole),
    ):
        file = folder / f"{modules.name}-{boundary}-{len(halves)}.tflite"
        file.write_bytes(lower_module(module, given, boundary))
        halves.append(
            load_half(file, modules.name, boundary, takes, gives, runtime=find_runtime(), threads=1)
        )
    levels = None if bottleneck is None else bottleneck.levels.detach()[: packed[modules.name].shape[2]]
    return LoweredPacker(modules, sent, halves[0], halves[1], levels)


class Bench:
    """Sends test canvases in every way, and counts what arrives and what is answered to it."""

    def __init__(self, network: VisionTransformer, packers: Sequence[LoweredPacker]) -> None:
        self._network = network
        self._packers = tuple(packers)
        self._tallies: dict[tuple[int, str], Tally] = {}
        self._left: frozenset[tuple[int, str]] = frozenset()
        self.exits: list[list[Right]] = [[] for _ in network.config.exits]

    @torch.no_grad()
    def send(self, samples: Samples) -> None:
        """One batch."""
        images = torch.from_numpy(samples.images)
        state: State = {IMAGE: images}
        boundaries: list[Tokens] = []
        for stage in range(len(self._network.stages)):
            boundaries.append(next(iter(state.values())).numpy())
            state, output = run_stage(self._network, stage, state)
            self.exits[stage].append(output.argmax(dim=1).numpy() == samples.targets)
        raw = self.exits[-1][-1]
        self._images(samples, raw)
        for boundary in range(1, len(boundaries)):
            self._tokens(boundary, boundaries[boundary], samples, raw)
        for packer in self._packers:
            self._packed(packer, boundaries[packer.modules.boundary], samples)

    def rows(self) -> tuple[Row, ...]:
        """What was counted."""
        raw = np.concatenate(self.exits[-1])
        return tuple(tally.row(raw) for tally in self._tallies.values())

    def leave(self) -> int:
        """Send no more in the ways that cannot be the cheapest; how many go on."""
        self._left = left_behind(self.rows())
        return len(self._tallies) - len(self._left)

    def _goes_on(self, boundary: int, codec: str) -> bool:
        return (boundary, codec) not in self._left

    def _images(self, samples: Samples, raw: Right) -> None:
        if self._goes_on(0, "u8"):
            self._count(0, "u8", [_as_sent(image, "u8") for image in samples.images], raw)
        pixels = samples.pixels()
        for size, words in SIZES.items():
            for kind, qualities in (("JPEG", JPEG_QUALITIES), ("WEBP", WEBP_QUALITIES)):
                for quality in qualities[size]:
                    name = f"{kind.lower()}{quality}{words}"
                    if not self._goes_on(0, name):
                        continue
                    coded = [_file(image[0], kind, quality, size) for image in pixels]
                    arrived = np.stack([picture for _, picture in coded])[:, None]  # n H W -> n 1 H W
                    right = self._right(0, arrived.astype(np.float32) / np.float32(255.0), samples)
                    self._count(0, name, [count for count, _ in coded], right)

    def _tokens(self, boundary: int, tokens: Tokens, samples: Samples, raw: Right) -> None:
        spec = TensorSpec(name=TOKENS, shape=(1, *tokens.shape[1:]))
        # Compression changes no value, so the answers are those without it.
        answers = {"raw": raw}
        for codec in TOKEN_CODECS:
            if not self._goes_on(boundary, codec):
                continue
            sent = [encode_tensors({TOKENS: each[None]}, codec) for each in tokens]
            plain = uncompressed(codec)
            if plain not in answers:
                arrived = [decode_tensors(each, [spec])[TOKENS] for each in sent]
                answers[plain] = self._right(boundary, np.concatenate(arrived).astype(np.float32), samples)
            self._count(boundary, codec, [sent_bytes(each) for each in sent], answers[plain])

    def _packed(self, packer: LoweredPacker, tokens: Tokens, samples: Samples) -> None:
        modules = packer.modules
        codecs = [codec for codec in modules.codecs if self._goes_on(modules.boundary, codec)]
        if not codecs:
            return
        made = [packer.pack.run({TOKENS: each[None]}) for each in tokens]
        answers: dict[str, Right] = {}
        for codec in codecs:
            sent = [encode_tensors(each, codec) for each in made]
            plain = uncompressed(codec)
            if plain not in answers:
                arrived = [packer.unpack.run(decode_tensors(each, packer.specs))[TOKENS] for each in sent]
                back = np.concatenate(arrived).astype(np.float32)  # n times 1 T D -> n T D
                answers[plain] = self._right(modules.boundary, back, samples)
            tally = self._count(modules.boundary, codec, [sent_bytes(each) for each in sent], answers[plain])
            if packer.levels is not None:
                values = torch.from_numpy(np.concatenate([each[modules.name] for each in made])).round()
                bits = float(bits_per_row(values, packer.levels)) * values.shape[1] * len(made)
                tally.ideal_bits = bits + (tally.ideal_bits or 0.0)

    def _right(self, boundary: int, tensors: Tokens, samples: Samples) -> Right:
        """Whether the last exit answers rightly to what arrived at a boundary. Shapes: result (n,)."""
        state: State = {TOKENS if boundary else IMAGE: torch.from_numpy(tensors)}
        for stage in range(boundary, len(self._network.stages)):
            state, output = run_stage(self._network, stage, state)
        right: Right = output.argmax(dim=1).numpy() == samples.targets
        return right

    def _count(self, boundary: int, codec: str, sizes: Sequence[int], right: Right) -> Tally:
        tally = self._tallies.setdefault((boundary, codec), Tally(boundary, codec))
        tally.sizes += sizes
        tally.right.append(right)
        return tally


def _as_sent(image: NDArray[np.float32], codec: CodecName) -> int:
    return sent_bytes(encode_tensors({IMAGE: image[None]}, codec))


def _file(image: NDArray[np.uint8], kind: str, quality: int, size: float) -> tuple[int, NDArray[np.uint8]]:
    """Bytes of the request with this image as a file, and the image that comes of it. Shapes: (H, W)."""
    picture = Image.fromarray(image)
    if size < 1.0:
        smaller = (round(image.shape[1] * size), round(image.shape[0] * size))
        picture = picture.resize(smaller, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if kind == "JPEG":
        picture.save(file, "JPEG", quality=quality, optimize=True)
    else:
        picture.save(file, "WEBP", quality=quality, method=6)
    stored = np.frombuffer(file.getvalue(), np.uint8)
    # The header of a JPEG tensor, whatever the file is: WebP would need one as long.
    sent = WireTensor(IMAGE, "u1", stored, (1.0 / 255.0,), (0,), None, Storage.JPEG, (1, 1, *image.shape))
    back = Image.open(io.BytesIO(file.getvalue())).convert("L")
    if size < 1.0:
        back = back.resize((image.shape[1], image.shape[0]), Image.Resampling.BICUBIC)
    return sent_bytes([sent]), np.asarray(back, np.uint8)
