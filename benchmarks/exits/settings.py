"""What is trained for the ranking of exits, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from edgeexit.models.encoder_config import EncoderConfig
from edgeexit.training.clutter import Clutter
from edgeexit.training.counting import Counting

Part = Literal["branches-classification", "branches-regression", "methods"]
PARTS: tuple[Part, ...] = get_args(Part)

# Eight narrow blocks: the smallest encoder tried in which deep exits beat shallow ones on these canvases,
# and which one core trains on some fifteen hundred canvases a second.
NETWORK = EncoderConfig(
    image_height=32,
    image_width=32,
    patch_size=8,
    in_chans=1,
    num_classes=0,
    embed_dim=48,
    depth=8,
    num_heads=3,
    mlp_dim=96,
    mean=(0.28,),
    std=(0.35,),
    # Every exit has a normalisation of its own.
    final_norm=False,
    stem_dims=(8, 16),
)


CLUTTER = Clutter(canvas=32, scrap=10, under=3, over=1)
# Whole items may lie over each other: counts above six can hardly be told by anybody.
COUNTING = Counting(canvas=32, least=0, most=6, scraps=2, scrap=8)


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is trained and looked at; everything that a figure depends on, but its seed.

    Units: `network_samples` canvases for each network of a comparison, `branch_samples` for each branch,
    drawn from `cached` canvases whose tokens are kept; `held_out` and `test`, canvases.
    """

    network_samples: int
    branch_samples: int
    cached: int
    held_out: int
    test: int
    network: EncoderConfig = NETWORK
    # Exits after these blocks; the last one ends the network.
    ends: tuple[int, ...] = (1, 3, 5, 8)
    batch_size: int = 64
    # Best of 6, 15 and 30 thousandths on some 20,000 canvases, by the last exit held out: 60, 65, 58 %.
    learning_rate: float = 1.5e-2
    clutter: Clutter = CLUTTER
    counting: Counting = COUNTING


FULL = Settings(network_samples=32_000, branch_samples=16_000, cached=16_000, held_out=2_500, test=10_000)
QUICK = Settings(
    network_samples=256,
    branch_samples=128,
    cached=128,
    held_out=96,
    test=96,
    network=replace(NETWORK, embed_dim=24, depth=4, mlp_dim=48, stem_dims=(4, 8)),
    ends=(1, 2, 3, 4),
)

# CPU minutes of one core of an AMD EPYC that each part takes at FULL with its seeds, for `within`.
FULL_MINUTES: dict[Part, float] = {
    "branches-classification": 4.0,
    "branches-regression": 4.0,
    "methods": 18.5,
}
FULL_SEEDS: dict[Part, int] = {"branches-classification": 3, "branches-regression": 3, "methods": 3}


def within(minutes: float, part: Part, seeds: int) -> Settings:
    """FULL, made longer or shorter so that this part takes about so many CPU minutes of one core.

    The same minutes and seeds give the same settings on every machine, so that results can be compared.
    """
    factor = minutes / FULL_MINUTES[part] * FULL_SEEDS[part] / seeds

    def scaled(samples: int) -> int:
        return max(FULL.batch_size, round(samples * factor / FULL.batch_size) * FULL.batch_size)

    return replace(
        FULL,
        network_samples=scaled(FULL.network_samples),
        branch_samples=scaled(FULL.branch_samples),
        cached=min(20_000, scaled(FULL.cached)),  # more would take over a gigabyte of tokens
    )
