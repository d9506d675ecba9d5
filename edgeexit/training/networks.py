"""Networks of recipes: one of our own or somebody's, with the exits that are asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from edgeexit.errors import ConfigError
from edgeexit.models.attach import attach_exits
from edgeexit.models.attached import AttachedNetwork
from edgeexit.models.branch_config import BranchKind
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.models.vit import ViTConfig, vit
from edgeexit.training.recipe import NetworkWanted


def own_vit(config: ViTConfig, wanted: NetworkWanted) -> MultiExitNetwork:
    """A fresh ViT: with its own exits, or with the branches, depths or values that are asked for.

    Raises: ConfigError when a depth or branch does not fit, or weights are given.
    """
    if wanted.weights is not None or wanted.download:
        raise ConfigError(
            "this network starts from nothing",
            key="weights",
            why="its recipe builds it, and trains it from random weights",
            fix="leave --weights and --download out",
        )
    if wanted.task == "classification" and wanted.after is None and wanted.branch is None:
        return vit(replace(config, num_classes=wanted.classes), seed=wanted.seed)
    backbone = vit(
        replace(config, num_classes=max(1, wanted.classes), exits=(config.depth,)), seed=wanted.seed
    )
    return with_exits(backbone, config.exits[:-1], wanted)


def with_exits(
    model: nn.Module | str | Path,
    after: tuple[int, ...],
    wanted: NetworkWanted,
    *,
    checkpoint: Path | None = None,
    final: BranchKind | None = None,
    image_size: int | None = None,
) -> AttachedNetwork:
    """A model with MLP exits after these blocks, or with the branches, depths or values that are asked for.

    A name without a checkpoint is fetched where fetching is allowed; the rest is `attach_exits`.

    Raises: as that.
    """
    named = isinstance(model, str) and checkpoint is None
    return attach_exits(
        model,
        after if wanted.after is None else wanted.after,
        wanted.branch or "mlp",
        task=wanted.task,
        classes=wanted.classes or None,
        value_offset=wanted.value_offset,
        value_scale=wanted.value_scale,
        final=final,
        image_size=image_size,
        checkpoint=checkpoint,
        download=named and wanted.download,
        seed=wanted.seed,
    )


def require_weights(wanted: NetworkWanted, *, what: str, library: str) -> None:
    """Refuse a backbone without weights. Raises: ConfigError."""
    if wanted.weights is None and not wanted.download:
        raise ConfigError(
            "no weights are given",
            key="weights",
            why="nothing is fetched unless it is asked for",
            fix=f"give --weights PATH ({what}), or --download to let {library} fetch them;"
            " --tiny shows the way with random weights",
        )
