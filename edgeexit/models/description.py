"""What a network is built from, as text: weights stored with it can be loaded by anybody.

{"family": "vit", "config": {"img_size": 32, "patch_size": 4, …}}
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from difflib import get_close_matches

import msgspec

from edgeexit.errors import UnsupportedModel
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.models.vit import VisionTransformer, ViTConfig, vit

# A description is a dozen numbers; a longer one is something else.
TEXT_CAP = 65_536
# No network that a board could bear is larger in any of its numbers; building one that is would fill
# the memory before its weights could be found missing.
NUMBER_CAP = 65_536
# Deeper than any published ViT by far; every block costs time to build, also without weights.
DEPTH_CAP = 512


@dataclass(frozen=True, slots=True)
class Description:
    """A network of a known family, not built yet."""

    family: str
    config: ViTConfig

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """What one image must be. Shapes: (C, H, W)."""
        return self.config.in_chans, self.config.img_size, self.config.img_size

    @property
    def classes(self) -> int:
        """Numbers that every exit gives."""
        return self.config.num_classes

    def __str__(self) -> str:
        """In words, for a manifest."""
        config = self.config
        exits = ", ".join(map(str, config.exits))
        return (
            f"ViT, {config.embed_dim} wide, {config.depth} blocks, {config.num_heads} heads, "
            f"patches of {config.patch_size}, exits after blocks {exits}"
        )

    def build(self) -> MultiExitNetwork:
        """The network, with weights that mean nothing."""
        return vit(self.config, seed=0)


class _Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text, read as far as the family."""

    family: str
    config: msgspec.Raw


def describe(network: MultiExitNetwork) -> str:
    """The description of a network of a known family. Raises: UnsupportedModel."""
    if not isinstance(network, VisionTransformer):
        raise UnsupportedModel(
            f"{type(network).__name__} cannot be described", expected="a network of the family vit"
        )
    return msgspec.json.encode({"family": "vit", "config": network.config}).decode()


def build(text: str) -> MultiExitNetwork:
    """The network that a description names, with weights that mean nothing. Raises: UnsupportedModel."""
    return read_description(text).build()


def read_description(text: str) -> Description:
    """Read a description, strictly. Raises: UnsupportedModel, saying what was wanted."""
    if len(text) > TEXT_CAP:
        raise _refused(f"it has {len(text)} characters, {TEXT_CAP} are allowed")
    try:
        described = msgspec.json.decode(text, type=_Text)
        if described.family != "vit":
            raise _refused(f"family {described.family[:40]!r} is unknown, vit is known")
        named = msgspec.json.decode(described.config, type=dict[str, object])
        _refuse_unknown(named)
        config = msgspec.json.decode(described.config, type=ViTConfig)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _refused(str(error).replace("`", "")) from error
    _refuse_excess(config)
    return Description("vit", config)


def _refuse_unknown(named: dict[str, object]) -> None:
    known = [field.name for field in fields(ViTConfig)]
    for name in named:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f", did you mean {near[0]}?" if near else ""
            raise _refused(f"{name[:40]!r} is no setting of a vit{meant}")


def _refuse_excess(config: ViTConfig) -> None:
    """Refuse numbers that no network has, before anything is made of them."""
    counts = (
        ("img_size", config.img_size),
        ("patch_size", config.patch_size),
        ("in_chans", config.in_chans),
        ("num_classes", config.num_classes),
        ("embed_dim", config.embed_dim),
        ("num_heads", config.num_heads),
        *(("exits", each) for each in config.exits),
        *(("head_hidden_dims", each) for each in config.head_hidden_dims),
        *(("stem_dims", each) for each in config.stem_dims),
    )
    for name, count in counts:
        if not 1 <= count <= NUMBER_CAP:
            raise _refused(f"{name} is {count}, not between 1 and {NUMBER_CAP}")
    if not 1 <= config.depth <= DEPTH_CAP:
        raise _refused(f"depth is {config.depth}, not between 1 and {DEPTH_CAP}")
    if not 0.0 < config.mlp_ratio <= 64.0:
        raise _refused(f"mlp_ratio is {config.mlp_ratio}, not above 0 and at most 64")
    if not 0.0 <= config.head_dropout < 1.0:
        raise _refused(f"head_dropout is {config.head_dropout}, not from 0 to below 1")
    if not all(each > 0.0 for each in config.std):
        raise _refused("a std is not above 0")


def _refused(complaint: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"the network's description is refused: {complaint}",
        expected="what edgeexit.models.description writes",
    )
