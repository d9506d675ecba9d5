"""Makes the tiny bundle that the tests run on machines without torch: `python make_tiny_bundle.py OUT`.

A three-stage network is trained for seconds on a synthetic task, lowered, quantised and calibrated the
way a real one is, only smaller. An image of 8 by 8 pixels is four patches of stripes, each lying or
standing; the label is the number of lying ones modulo three, so that exits before the patches have met
do worse than those after.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import litert_torch
import numpy as np
import torch
from ai_edge_quantizer import quantizer, recipe
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeexit.bundle import Bundle, encode_golden, golden_blob, model_blob, write_bundle
from edgeexit.bundle.manifest import (
    SCHEMA,
    Boundary,
    BoundaryCodec,
    Calibration,
    CodecName,
    Exit,
    Manifest,
    Precision,
    Preprocessing,
    Provenance,
    Stage,
    TensorSpec,
    Variant,
)
from edgeexit.runner.litert import LiteRTRunner
from edgeexit.runner.protocol import Tensors
from edgeexit.runner.runtime import LITERT, TFLITE

Floats = NDArray[np.float32]

LABELS = ("none-or-three", "one-or-four", "two")
DIM = 8
TOKENS = 4
BINS = 8  # few, because the calibration set is small
GOLDEN = 16
VARIANTS: tuple[Precision, ...] = ("f32", "int8")
RUNTIMES = {"f32": (LITERT, TFLITE), "int8": (LITERT,)}


class Block(nn.Module):
    """Tokens meet, then each thinks for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(TOKENS, TOKENS)
        self.norm = nn.LayerNorm(DIM)
        self.fc1 = nn.Linear(DIM, 2 * DIM)
        self.fc2 = nn.Linear(2 * DIM, DIM)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (1, TOKENS, DIM) in and out."""
        mixed = self.mix(tokens.transpose(1, 2)).transpose(1, 2)  # (B, TOKENS, DIM)
        tokens = tokens + mixed
        hidden: Tensor = self.fc2(torch.relu(self.fc1(self.norm(tokens))))
        return tokens + hidden


class First(nn.Module):
    """Stage 0: patches, one thought each, exit 0."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(1, DIM, 4, stride=4)
        self.exit = nn.Linear(DIM, len(LABELS))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Shapes: image (B, 1, 8, 8)."""
        patches = self.patch_embed((image - 0.5) * 4.0)  # (B, DIM, 2, 2)
        tokens = torch.relu(patches).flatten(2).transpose(1, 2)  # (B, TOKENS, DIM)
        return {"tokens": tokens, "logits": self.exit(tokens.mean(dim=1))}


class Middle(nn.Module):
    """Stage 1: one block, exit 1."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.exit = nn.Linear(DIM, len(LABELS))

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Shapes: tokens (B, TOKENS, DIM)."""
        after = self.block(tokens)
        return {"tokens": after, "logits": self.exit(after.mean(dim=1))}


class Last(nn.Module):
    """Stage 2: one block, exit 2; nothing travels on."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.exit = nn.Linear(DIM, len(LABELS))

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Shapes: tokens (B, TOKENS, DIM)."""
        return {"logits": self.exit(self.block(tokens).mean(dim=1))}


@dataclass(frozen=True, slots=True)
class Labelled:
    """Shapes: images (n, 1, 8, 8), labels (n,)."""

    images: Floats
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Facts:
    """What was counted and measured, each by stage or exit; by variant where variants differ."""

    parameters: tuple[int, ...]
    macs: tuple[int, ...]
    accuracy: tuple[float, ...]
    f16_cost: float
    parity: dict[Precision, list[float]]
    calibrations: dict[Precision, list[Calibration]]


def draw(count: int, seed: int) -> Labelled:
    """Draw labelled images."""
    rng = np.random.default_rng(seed)
    lying = rng.integers(0, 2, (count, 4))
    stripe = np.zeros((count, 4, 4, 4), dtype=np.float32)
    stripe[:, :, ::2, :] = 1.0
    patches = np.where(lying[:, :, None, None] == 1, stripe, stripe.transpose(0, 1, 3, 2))
    flipped = rng.integers(0, 2, (count, 4, 1, 1)) == 1
    patches = np.where(flipped, 1.0 - patches, patches)
    grid = patches.reshape(count, 2, 2, 4, 4).transpose(0, 1, 3, 2, 4).reshape(count, 1, 8, 8)
    noisy = np.clip(0.3 + 0.4 * grid + rng.normal(0.0, 0.22, grid.shape), 0.0, 1.0)
    pixels = np.round(noisy * 255.0) / 255.0  # what an 8-bit image can hold
    return Labelled(pixels.astype(np.float32), lying.sum(axis=1) % 3)


def logits_of(stages: list[nn.Module], images: Tensor, *, half: bool = False) -> list[Tensor]:
    """The logits of every exit; with `half`, what travels between stages is rounded to float16.

    Shapes: images (n, 1, 8, 8); each (n, C).
    """
    state, logits = images, []
    for stage in stages:
        given = stage(state)
        logits.append(given["logits"])
        state = given.get("tokens", state)
        if half:
            state = state.half().float()
    return logits


def train(stages: list[nn.Module], data: Labelled) -> None:
    """Train all exits jointly."""
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    weights = [weight for stage in stages for weight in stage.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=5e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1200)
    for _ in range(1200):
        batch = torch.randint(0, len(labels), (256,))
        loss = sum(
            (nn.functional.cross_entropy(exit_, labels[batch]) for exit_ in logits_of(stages, images[batch])),
            start=torch.zeros(()),
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def lower(stage: nn.Module, k: int, sample: Tensor) -> dict[Precision, bytes]:
    """The stage as TFLite: float, and with int8 weights."""
    given = {"image" if k == 0 else "tokens": sample}
    data = bytes(litert_torch.convert(stage.eval(), sample_kwargs=given).model_content())
    work = quantizer.Quantizer(bytearray(data))
    work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    return {"f32": data, "int8": bytes(work.quantize().quantized_model)}


def temperature_of(logits: Floats, labels: NDArray[np.int64]) -> float:
    """The temperature of the least loss, from a grid."""

    def loss(temperature: float) -> float:
        return float(-np.log(softmax(logits / temperature)[np.arange(len(labels)), labels]).mean())

    return min((float(each) for each in np.linspace(0.5, 3.0, 51)), key=loss)


def softmax(logits: Floats) -> Floats:
    """Shapes: (n, C) in and out."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def accuracy_of(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Fraction of labels hit."""
    return round(float((logits.argmax(axis=1) == labels).mean()), 6)


def _codec(codec: CodecName, payload_bytes: int, quality_cost: float = 0.0) -> BoundaryCodec:
    return BoundaryCodec(codec=codec, payload_bytes=payload_bytes, quality_cost=quality_cost)


def calibrate(variant: str, k: int, logits: list[Floats], labels: NDArray[np.int64]) -> Calibration:
    """Temperature and quality tables of exit k, bins of equal mass."""
    temperature = round(temperature_of(logits[k], labels), 3)
    scores = softmax(logits[k] / temperature).max(axis=1)
    edges = np.unique(np.round(np.quantile(scores, np.arange(1, BINS) / BINS), 6))
    upper = [float(edge) for edge in edges if 0.0 < edge < 1.0] + [1.0]
    bin_of = np.searchsorted(upper, scores)
    rows = []
    for deeper in logits[k:]:
        correct = deeper.argmax(axis=1) == labels
        means = [
            correct[bin_of == i].mean() if (bin_of == i).any() else correct.mean() for i in range(len(upper))
        ]
        rows.append(tuple(round(float(value), 6) for value in np.maximum.accumulate(means)))
    return Calibration(
        variant=variant,
        temperature=temperature,
        upper_scores=tuple(upper),
        quality=tuple(rows),
        accuracy=accuracy_of(logits[k], labels),
        samples=len(labels),
    )


def manifest_of(files: list[dict[Precision, bytes]], golden: bytes, facts: Facts) -> Manifest:
    """Describe what was made."""
    image = TensorSpec(name="image", shape=(1, 1, 8, 8))
    tokens = TensorSpec(name="tokens", shape=(1, TOKENS, DIM))
    # Images of 8 bits lose nothing as bytes.
    codecs = (_codec("raw", image.size_bytes), _codec("u8", image.size))
    boundaries = [Boundary(tensors=(image,), codecs=codecs)]
    boundaries += [
        Boundary(
            tensors=(tokens,),
            codecs=(_codec("raw", tokens.size_bytes), _codec("f16", tokens.size_bytes // 2, facts.f16_cost)),
        )
    ] * 2
    return Manifest(
        schema=SCHEMA,
        name="tiny-stripes",
        version="1.0.0",
        serial=1,
        created="2026-11-21T00:00:00Z",
        task="classification",
        labels=LABELS,
        preprocessing=Preprocessing(height=8, width=8, color="gray", layout="NCHW"),
        boundaries=tuple(boundaries),
        stages=tuple(
            Stage(
                parameters=facts.parameters[k],
                macs=facts.macs[k],
                variants=tuple(
                    Variant(
                        name=name,
                        format="tflite",
                        precision=name,
                        blob=model_blob(files[k][name]),
                        runtimes=RUNTIMES[name],
                        parity_max_abs=facts.parity[name][k],
                    )
                    for name in VARIANTS
                ),
            )
            for k in range(3)
        ),
        exits=tuple(
            Exit(
                output=TensorSpec(name="logits", shape=(1, len(LABELS))),
                accuracy_float=facts.accuracy[k],
                calibrations=tuple(facts.calibrations[name][k] for name in VARIANTS),
            )
            for k in range(3)
        ),
        golden=golden_blob(golden),
        provenance=Provenance(
            network="three stages of patches and mixed tokens, for tests",
            dataset="striped patches, drawn by the script that made this",
            licence="MIT",
            tools=tuple(f"{tool} {version(tool)}" for tool in ("torch", "litert-torch", "ai-edge-quantizer")),
        ),
    )


def run_all(bundle: Bundle, variant: Precision, images: Floats) -> list[Floats]:
    """The logits of every exit, one variant throughout. Shapes: images (n, 1, 8, 8); each (n, C)."""
    rows: list[list[Floats]] = [[], [], []]
    with LiteRTRunner(bundle, dict.fromkeys(range(3), variant)) as runner:
        for image in images:
            state: Tensors = {"image": image[None]}  # (1, 1, 8, 8)
            for k in range(3):
                given = runner.run(k, state)
                rows[k].append(given.output)
                state = given.boundary
    return [np.stack(row) for row in rows]


def main(out: Path) -> Bundle:
    """Train, lower, measure, calibrate, write."""
    torch.manual_seed(7)
    torch.set_num_threads(1)
    stages: list[nn.Module] = [First(), Middle(), Last()]
    train(stages, draw(8000, seed=1))
    held_out = draw(2000, seed=2)
    images = torch.from_numpy(held_out.images)
    with torch.no_grad():
        float_logits = [logits.numpy() for logits in logits_of(stages, images)]
        half_logits = logits_of(stages, images, half=True)[-1].numpy()
    samples = [images[:1], torch.zeros(1, TOKENS, DIM), torch.zeros(1, TOKENS, DIM)]
    files = [lower(stage, k, samples[k]) for k, stage in enumerate(stages)]
    golden = encode_golden(
        {"image": held_out.images[:GOLDEN, None]}, [each[:GOLDEN] for each in float_logits]
    )
    contents = {model_blob(data).file: data for variants in files for data in variants.values()}
    contents[golden_blob(golden).file] = golden
    parameters = tuple(sum(weight.numel() for weight in stage.parameters()) for stage in stages)
    accuracy = tuple(accuracy_of(logits, held_out.labels) for logits in float_logits)
    # Weights used once a token, or once an image in the exits.
    macs = (64 * DIM + DIM * 3, *[TOKENS * DIM * (TOKENS + 4 * DIM) + DIM * 3] * 2)

    def described(answers: dict[Precision, list[Floats]]) -> Manifest:
        return manifest_of(
            files,
            golden,
            Facts(
                parameters=parameters,
                macs=macs,
                accuracy=accuracy,
                f16_cost=round(accuracy[-1] - accuracy_of(half_logits, held_out.labels), 6),
                parity={
                    name: [
                        round(float(np.abs(a - b).max()), 9) for a, b in zip(each, float_logits, strict=True)
                    ]
                    for name, each in answers.items()
                },
                calibrations={
                    name: [calibrate(name, k, each, held_out.labels) for k in range(3)]
                    for name, each in answers.items()
                },
            ),
        )

    with tempfile.TemporaryDirectory() as folder:
        # A first bundle, calibrated by the float network, runs the variants that the real one describes.
        draft = write_bundle(
            Path(folder) / "draft", described(dict.fromkeys(VARIANTS, float_logits)), contents
        )
        answers = {name: run_all(draft, name, held_out.images) for name in VARIANTS}
    return write_bundle(out, described(answers), contents, replace=True)


if __name__ == "__main__":
    made = main(Path(sys.argv[1]))
    for exit_ in made.manifest.exits:
        print(exit_.accuracy_float, [calibration.accuracy for calibration in exit_.calibrations])  # noqa: T201
    print(made.digest)  # noqa: T201
