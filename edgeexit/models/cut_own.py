"""A ViT of edgeexit.models.vit as a backbone: its blocks in one row, its last head as its own."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgeexit.models.cutting import CutBackbone, Parts, Weights
from edgeexit.models.encoder_config import EncoderConfig
from edgeexit.models.vit import Block, FirstStage, VisionTransformer


def cut_own(model: VisionTransformer, *, own_head: bool) -> CutBackbone:
    """Take it apart; earlier exits of its own are left behind. Raises: CannotCut."""
    parts = Parts(model)
    parts.float_weights()
    config = model.config
    first = parts.module("stages.0", FirstStage)
    weights = Weights()
    if own_head:
        head = parts.module(f"stages.{len(model.stages) - 1}.head", nn.Module)
        for name, tensor in head.state_dict().items():
            weights.put(f"norm.{name[5:]}" if name.startswith("norm.") else f"head.{name}", tensor)
    for name, tensor in first.patch_embed.state_dict().items():
        weights.put(f"embedding.{name}", tensor)
    positions = first.pos_embed
    weights.put("embedding.prefix", first.cls_token + positions[:, :1])
    weights.put("embedding.pos_embed", positions[:, 1:])
    blocks = [module for module in model.stages.modules() if isinstance(module, Block)]
    for index, block in enumerate(blocks):
        for name, tensor in block.state_dict().items():
            weights.put(f"blocks.{index}.{name}", tensor)
    encoder = EncoderConfig(
        image_height=config.img_size,
        image_width=config.img_size,
        patch_size=config.patch_size,
        in_chans=config.in_chans,
        num_classes=config.num_classes if own_head else 0,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_dim=int(config.embed_dim * config.mlp_ratio),
        mean=config.mean,
        std=config.std,
        # Without its head a ViT of ours has no normalisation behind its last block.
        final_norm=own_head,
        stem_dims=config.stem_dims,
        head_hidden_dims=config.head_hidden_dims if own_head else (),
        head_dropout=config.head_dropout,
    )
    return CutBackbone(encoder, weights.found, _reference(model, config.mean, config.std, own_head))


def _reference(
    model: VisionTransformer, mean: tuple[float, ...], std: tuple[float, ...], own_head: bool
) -> Callable[[Tensor], Tensor] | None:
    if not own_head:
        return None  # every part was taken as it is, and there is no output to compare
    model = copy.deepcopy(model).eval()

    def run(normalised: Tensor) -> Tensor:
        # This model normalises by itself, so the image is brought back to 0 … 1 first.
        image = normalised * torch.tensor(std).reshape(1, -1, 1, 1) + torch.tensor(mean).reshape(1, -1, 1, 1)
        outputs: list[Tensor] = model(image.to(next(model.parameters()).device))
        return outputs[-1].cpu()

    return run
