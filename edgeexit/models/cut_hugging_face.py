"""ViT, DeiT and DINOv2 of Hugging Face transformers, taken apart. The library is not imported here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from edgeexit.models.cutting import CutBackbone, Parts, Weights, derives_from
from edgeexit.models.encoder_config import Activation, EncoderConfig, Readout

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class _Names:
    """What a family calls its parts. `mean` and `std` are what its published weights were trained with."""

    base: str
    layers: str
    norms: tuple[str, str]
    scales: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


_BEFORE_AND_AFTER = ("layernorm_before", "layernorm_after")
_FAMILIES = {
    "ViT": _Names("vit", "layers", _BEFORE_AND_AFTER, False, HALF, HALF),
    "DeiT": _Names("deit", "layers", _BEFORE_AND_AFTER, False, IMAGENET_MEAN, IMAGENET_STD),
    "Dinov2": _Names("dinov2", "encoder.layer", ("norm1", "norm2"), True, IMAGENET_MEAN, IMAGENET_STD),
    "Dinov2WithRegisters": _Names(
        "dinov2_with_registers", "encoder.layer", ("norm1", "norm2"), True, IMAGENET_MEAN, IMAGENET_STD
    ),
}
# The classes that can be cut, and the heads that they have.
_HEADS: dict[str, tuple[str, ...]] = {
    "Model": (),
    "ForImageClassification": ("classifier",),
    "ForImageClassificationWithTeacher": ("cls_classifier", "distillation_classifier"),
}
KNOWN = tuple(
    family + ending
    for family in _FAMILIES
    for ending in _HEADS
    if family == "DeiT" or not ending.endswith("WithTeacher")
)
_ACTIVATIONS: dict[object, Activation] = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def is_hugging_face(model: nn.Module) -> bool:
    """Whether this is a model of transformers, or derived from one."""
    return derives_from(model, "transformers.modeling_utils", "PreTrainedModel")


def cut_hugging_face(
    model: nn.Module,
    *,
    own_head: bool,
    image_size: tuple[int, int] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> CutBackbone:
    """Take it apart, at another image size where one is given. Raises: CannotCut."""
    names, heads = _known(model)
    Parts(model).float_weights()
    base = model if not heads else Parts(model).module(names.base, nn.Module)
    parts = Parts(base)
    conv = parts.patches("embeddings.patch_embeddings.projection")
    depth = len(parts.module(names.layers, nn.ModuleList))
    if parts.anything("config.use_swiglu_ffn"):
        raise parts.refused("its blocks have a gated MLP (SwiGLU), which no encoder here has")
    activation = parts.anything("config.hidden_act")
    if activation not in _ACTIVATIONS:
        raise parts.refused(
            f"its activation is {activation!r}, known are {', '.join(map(str, _ACTIVATIONS))}"
        )
    native = _pair(parts.anything("config.image_size"))
    height, width = image_size or native
    weights = Weights()
    weights.take("embedding.proj", conv)
    prefix_tokens = _positions(parts, weights, conv, (height, width), native)
    for index in range(depth):
        _block(parts, weights, names, index)
    norm = parts.module("layernorm", nn.LayerNorm)
    weights.take("norm", norm)
    classes = 0
    if own_head:
        for name, path in zip(("head.fc", "head.fc_distillation"), heads, strict=False):
            head = Parts(model).module(path, nn.Linear)
            weights.take(name, head)
            classes = head.out_features
    first = f"{names.layers}.0"
    query = parts.module(f"{first}.attention.q_proj", nn.Linear)
    if query.out_features != query.in_features:
        raise parts.refused("its heads do not fill its width")
    channels = conv.in_channels
    config = EncoderConfig(
        image_height=height,
        image_width=width,
        patch_size=conv.kernel_size[0],
        in_chans=channels,
        num_classes=classes,
        embed_dim=conv.out_channels,
        depth=depth,
        num_heads=cast("int", parts.anything(f"{first}.attention.num_attention_heads")),
        mlp_dim=parts.module(f"{first}.mlp.fc1", nn.Linear).out_features,
        mean=mean or (names.mean if channels == len(names.mean) else (0.5,) * channels),
        std=std or (names.std if channels == len(names.std) else (0.5,) * channels),
        num_prefix_tokens=prefix_tokens,
        projections="apart",
        qkv_bias=query.bias is not None,
        layer_scale=names.scales,
        activation=_ACTIVATIONS[activation],
        norm_eps=norm.eps,
        patch_bias=conv.bias is not None,
        readout=_readout(names, heads) if own_head else "class",
    )
    return CutBackbone(config, weights.found, _reference(model, base, own_head, (height, width) != native))


def hugging_face_classes(model: nn.Module) -> int:
    """Classes of the model's own head; 0 without one. Raises: CannotCut."""
    _, heads = _known(model)
    head = getattr(model, heads[0], None) if heads else None
    return head.out_features if isinstance(head, nn.Linear) else 0


def _known(model: nn.Module) -> tuple[_Names, tuple[str, ...]]:
    """How its family names its parts, and its heads. Raises: CannotCut."""
    parts = Parts(model)
    for family, names in _FAMILIES.items():
        for ending, heads in _HEADS.items():
            if parts.name == family + ending and parts.name in KNOWN:
                return names, heads
    raise parts.refused(f"its class is none of {', '.join(KNOWN)}")


def _positions(
    parts: Parts, weights: Weights, conv: nn.Conv2d, size: tuple[int, int], native: tuple[int, int]
) -> int:
    """Prefix tokens with their positions, and the positions of patches; how many prefix tokens there are."""
    patches = (size[0] // conv.kernel_size[0]) * (size[1] // conv.kernel_size[1])
    positions = parts.needed("embeddings.position_embeddings")
    before = [parts.needed("embeddings.cls_token")]
    distillation = parts.tensor("embeddings.distillation_token")
    if distillation is not None:
        before.append(distillation)
    count = len(before)
    if size != native:
        # The library's own resampling of positions, for good; of the tokens it looks at the shape alone.
        resample = cast(
            "Callable[[Tensor, int, int], Tensor]", parts.anything("embeddings.interpolate_pos_encoding")
        )
        with torch.no_grad():
            positions = resample(positions.new_zeros(1, patches + count, conv.out_channels), *size)
    if positions.shape[1] != patches + count:
        raise parts.refused(f"it has {positions.shape[1]} positions for {count} + {patches} tokens")
    weights.put("embedding.pos_embed", positions[:, count:])
    prefix = torch.cat(before, dim=1) + positions[:, :count]  # n of 1 1 D -> 1 n D
    registers = parts.tensor("embeddings.register_tokens")
    if registers is not None:
        prefix = torch.cat((prefix, registers), dim=1)  # 1 n D -> 1 n+R D
    weights.put("embedding.prefix", prefix)
    return prefix.shape[1]


def _block(parts: Parts, weights: Weights, names: _Names, index: int) -> None:
    theirs, ours = f"{names.layers}.{index}", f"blocks.{index}"
    for half, norm in enumerate(names.norms, start=1):
        weights.take(f"{ours}.norm{half}", parts.module(f"{theirs}.{norm}", nn.LayerNorm))
        if names.scales:
            weights.put(f"{ours}.scale{half}.gamma", parts.needed(f"{theirs}.layer_scale{half}.lambda1"))
    for name, path in (
        ("attn.query", "attention.q_proj"),
        ("attn.key", "attention.k_proj"),
        ("attn.value", "attention.v_proj"),
        ("attn.proj", "attention.o_proj"),
        ("mlp.fc1", "mlp.fc1"),
        ("mlp.fc2", "mlp.fc2"),
    ):
        weights.take(f"{ours}.{name}", parts.module(f"{theirs}.{path}", nn.Linear))


def _readout(names: _Names, heads: tuple[str, ...]) -> Readout:
    if len(heads) == 2:
        return "class_and_distillation"
    return "class_and_patches" if names.base.startswith("dinov2") else "class"


def _pair(size: object) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    height, width = cast("tuple[int, int]", size)
    return height, width


def _reference(
    model: nn.Module, base: nn.Module, own_head: bool, resampled: bool
) -> Callable[[Tensor], Tensor]:
    run_model = copy.deepcopy(model if own_head else base).eval()
    # DINOv2 always resamples by itself; the others only when told to.
    told = {"interpolate_pos_encoding": True} if resampled and "Dino" not in type(model).__name__ else {}

    def run(normalised: Tensor) -> Tensor:
        output = run_model(pixel_values=normalised.to(next(run_model.parameters()).device), **told)
        result: Tensor = output.logits if own_head else output.last_hidden_state
        return result.cpu()

    return run
