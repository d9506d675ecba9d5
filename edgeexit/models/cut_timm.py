"""timm's VisionTransformer and its distilled DeiT, taken apart. timm itself is not imported here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from edgeexit.models.cutting import CutBackbone, Parts, Weights, derives_from
from edgeexit.models.encoder_config import Activation, EncoderConfig, Readout

# timm's modules whose computation is known here; a subclass may compute anything.
KNOWN = ("VisionTransformer", "VisionTransformerDistilled")

_ACTIVATIONS: dict[str, Activation] = {
    "GELU": "gelu",
    "GELUTanh": "gelu_tanh",
    "QuickGELU": "quick_gelu",
    "ReLU": "relu",
    "SiLU": "silu",
}


def is_timm(model: nn.Module) -> bool:
    """Whether this is a VisionTransformer of timm, or derived from it."""
    return derives_from(model, "timm.models.vision_transformer", "VisionTransformer")


def cut_timm(
    model: nn.Module,
    *,
    own_head: bool,
    image_size: tuple[int, int] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> CutBackbone:
    """Take it apart, at another image size where one is given. Raises: CannotCut."""
    parts = Parts(model)
    if parts.name not in KNOWN:
        raise parts.refused(f"its class is none of {', '.join(KNOWN)}")
    parts.float_weights()
    model = copy.deepcopy(model).eval()
    parts = Parts(model)
    conv = parts.patches("patch_embed.proj")
    parts.named("patch_embed", "PatchEmbed")
    parts.without("patch_embed.norm")
    if image_size is not None:
        # timm's own resampling of positions, for good.
        model.set_input_size(img_size=image_size)  # type: ignore[operator]
    height, width = cast("tuple[int, int]", parts.anything("patch_embed.img_size"))
    depth = len(parts.module("blocks", nn.Sequential))
    for index in range(depth):
        _refuse_unknown_block(parts, f"blocks.{index}")
    distilled = parts.name == "VisionTransformerDistilled"
    norms = _norms(parts, depth)
    weights = Weights()
    weights.take("embedding.proj", conv)
    prefix_tokens = _positions(parts, weights)
    _blocks(parts, weights, depth)
    for name, path in (("embedding.norm", "norm_pre"), ("norm", "norm"), ("head.fc_norm", "fc_norm")):
        norm = parts.optional(path, nn.LayerNorm)
        if norm is not None and (own_head or name != "head.fc_norm"):
            weights.take(name, norm)
    classes = _head(parts, weights, distilled) if own_head else 0
    pretrained = parts.anything("pretrained_cfg")
    config = EncoderConfig(
        image_height=height,
        image_width=width,
        patch_size=conv.kernel_size[0],
        in_chans=conv.in_channels,
        num_classes=classes,
        embed_dim=conv.out_channels,
        depth=depth,
        num_heads=_whole(parts, "blocks.0.attn.num_heads"),
        mlp_dim=parts.module("blocks.0.mlp.fc1", nn.Linear).out_features,
        mean=_of_channels(mean, pretrained, "mean", conv.in_channels),
        std=_of_channels(std, pretrained, "std", conv.in_channels),
        num_prefix_tokens=prefix_tokens,
        class_token=parts.tensor("cls_token") is not None,
        qkv_bias=parts.module("blocks.0.attn.qkv", nn.Linear).bias is not None,
        layer_scale=parts.anything("blocks.0.ls1.gamma") is not None,
        activation=_ACTIVATIONS[type(parts.anything("blocks.0.mlp.act")).__name__],
        norm_eps=norms,
        patch_bias=conv.bias is not None,
        norm_pre=parts.optional("norm_pre", nn.LayerNorm) is not None,
        final_norm=parts.optional("norm", nn.LayerNorm) is not None,
        fc_norm=own_head and parts.optional("fc_norm", nn.LayerNorm) is not None,
        readout=_readout(parts, distilled, own_head),
    )
    return CutBackbone(config, weights.found, _reference(model, own_head))


def timm_classes(model: nn.Module) -> int:
    """Classes of the model's own head; 0 without one."""
    head = Parts(model).anything("head")
    return head.out_features if isinstance(head, nn.Linear) else 0


def _refuse_unknown_block(parts: Parts, block: str) -> None:
    parts.named(block, "Block")
    parts.named(f"{block}.attn", "Attention")
    parts.named(f"{block}.mlp", "Mlp")
    parts.without(f"{block}.attn.q_norm", f"{block}.attn.k_norm", f"{block}.attn.norm", f"{block}.attn.gate")
    parts.without(f"{block}.mlp.norm")
    qkv = parts.module(f"{block}.attn.qkv", nn.Linear)
    proj = parts.module(f"{block}.attn.proj", nn.Linear)
    if qkv.out_features != 3 * qkv.in_features or proj.bias is None:
        raise parts.refused(f"{block}.attn has heads of another width, or no bias behind them")
    activation = type(parts.anything(f"{block}.mlp.act")).__name__
    if activation not in _ACTIVATIONS:
        raise parts.refused(f"{block}.mlp.act is {activation}, known are {', '.join(_ACTIVATIONS)}")


def _norms(parts: Parts, depth: int) -> float:
    """The one epsilon of all normalisations."""
    paths = [f"blocks.{index}.norm{half}" for index in range(depth) for half in (1, 2)]
    norms = [parts.module(path, nn.LayerNorm) for path in paths]
    norms += [
        norm
        for path in ("norm_pre", "norm", "fc_norm")
        if (norm := parts.optional(path, nn.LayerNorm)) is not None
    ]
    parts.same("epsilons", (norm.eps for norm in norms))
    parts.same("MLP widths", (parts.needed(f"blocks.{i}.mlp.fc1.weight").shape[0] for i in range(depth)))
    parts.same("numbers of heads", (parts.anything(f"blocks.{i}.attn.num_heads") for i in range(depth)))
    parts.same("activations", (type(parts.anything(f"blocks.{i}.mlp.act")).__name__ for i in range(depth)))
    parts.same("layer scales", (parts.anything(f"blocks.{i}.ls1.gamma") is None for i in range(depth)))
    return norms[0].eps


def _positions(parts: Parts, weights: Weights) -> int:
    """Prefix tokens with their positions, and the positions of patches; how many prefix tokens there are."""
    tokens = [
        token
        for name in ("cls_token", "dist_token", "reg_token")
        if (token := parts.tensor(name)) is not None
    ]
    count = sum(token.shape[1] for token in tokens)
    grid_height, grid_width = cast("tuple[int, int]", parts.anything("patch_embed.grid_size"))
    patches = grid_height * grid_width
    positions = parts.tensor("pos_embed")
    if positions is None:
        positions = torch.zeros(1, patches, parts.patches("patch_embed.proj").out_channels)
    extra = positions.shape[1] - patches
    if extra not in (0, count):
        raise parts.refused(f"it has {positions.shape[1]} positions for {count} + {patches} tokens")
    weights.put("embedding.pos_embed", positions[:, extra:])
    if tokens:
        prefix = torch.cat(tokens, dim=1)  # K of 1 n D -> 1 P D
        weights.put("embedding.prefix", prefix + positions[:, :count] if extra else prefix)
    return count


def _blocks(parts: Parts, weights: Weights, depth: int) -> None:
    for index in range(depth):
        block = f"blocks.{index}"
        for half in (1, 2):
            weights.take(f"{block}.norm{half}", parts.module(f"{block}.norm{half}", nn.LayerNorm))
            gamma = parts.tensor(f"{block}.ls{half}.gamma")
            if gamma is not None:
                weights.put(f"{block}.scale{half}.gamma", gamma)
        for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            weights.take(f"{block}.{name}", parts.module(f"{block}.{name}", nn.Linear))


def _head(parts: Parts, weights: Weights, distilled: bool) -> int:
    """The head; how many classes it has."""
    head = parts.module("head", nn.Linear)
    weights.take("head.fc", head)
    if distilled:
        weights.take("head.fc_distillation", parts.module("head_dist", nn.Linear))
    return head.out_features


def _readout(parts: Parts, distilled: bool, own_head: bool) -> Readout:
    class_token = parts.tensor("cls_token") is not None
    if not own_head:
        return "class" if class_token else "patches"
    if distilled:
        return "class_and_distillation"
    pool = parts.anything("global_pool")
    if pool == "token":
        return "class"
    if pool == "avg":
        return "all" if parts.anything("pool_include_prefix") else "patches"
    raise parts.refused(
        f"its head pools by {pool!r}, known are 'token' and 'avg'",
        "name a branch for the last exit: final='linear'",
    )


def _of_channels(
    given: tuple[float, ...] | None, pretrained: object, key: str, channels: int
) -> tuple[float, ...]:
    """Mean or deviation: as given, else those of the model's own description, else 0.5 as timm has it."""
    if given is not None:
        return given
    told = pretrained.get(key) if isinstance(pretrained, dict) else None
    if isinstance(told, tuple | list) and len(told) == channels:
        return tuple(float(value) for value in told)
    return (0.5,) * channels


def _whole(parts: Parts, path: str) -> int:
    found = parts.anything(path)
    if not isinstance(found, int):
        raise parts.refused(f"{path} is {found!r}, no whole number")
    return found


def _reference(model: nn.Module, own_head: bool) -> Callable[[Tensor], Tensor]:
    features = cast("Callable[[Tensor], Tensor]", model.forward_features)

    def run(normalised: Tensor) -> Tensor:
        image = normalised.to(next(model.parameters()).device)
        result: Tensor = model(image) if own_head else features(image)
        return result.cpu()

    return run
