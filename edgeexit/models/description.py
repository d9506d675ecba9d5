"""What a network is built from, as text: weights stored with it can be loaded by anybody.

{"family": "vit", "config": {"img_size": 32, "patch_size": 4, …}}
{"family": "attached", "config": {"backbone": {…}, "after": [3, 6], "branches": [{"kind": "mlp", …}, …], …}}
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from difflib import get_close_matches

import msgspec

from edgeexit.bundle.manifest import Task
from edgeexit.errors import UnsupportedModel
from edgeexit.models.attached import AttachedConfig, AttachedNetwork, attached
from edgeexit.models.protocol import MultiExitNetwork
from edgeexit.models.vit import VisionTransformer, ViTConfig, vit

# Ours from end to end, and somebody's backbone with exits of ours.
FAMILIES = ("vit", "attached")
# A description is a few dozen numbers; a longer one is something else.
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
    config: ViTConfig | AttachedConfig

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """What one image must be. Shapes: (C, H, W)."""
        if isinstance(self.config, ViTConfig):
            return self.config.in_chans, self.config.img_size, self.config.img_size
        backbone = self.config.backbone
        return backbone.in_chans, backbone.image_height, backbone.image_width

    @property
    def task(self) -> Task:
        """What every exit answers."""
        return "classification" if isinstance(self.config, ViTConfig) else self.config.answer.task

    @property
    def classes(self) -> int:
        """Classes that every exit tells apart; 0 where exits give value and spread."""
        config = self.config
        return config.num_classes if isinstance(config, ViTConfig) else config.answer.classes

    def __str__(self) -> str:
        """In words, for a manifest."""
        config = self.config
        backbone = config if isinstance(config, ViTConfig) else config.backbone
        if isinstance(config, ViTConfig):
            exits = f"exits after blocks {', '.join(map(str, config.exits))}"
        else:
            last = "its own head" if config.final is None else config.final.kind
            kinds = [*(branch.kind for branch in config.branches), last]
            places = (f"{end} ({kind})" for end, kind in zip(config.ends, kinds, strict=True))
            exits = f"exits after blocks {', '.join(places)}"
        return (
            f"ViT, {backbone.embed_dim} wide, {backbone.depth} blocks, {backbone.num_heads} heads, "
            f"patches of {backbone.patch_size}, {exits}"
        )

    def build(self) -> MultiExitNetwork:
        """The network, with weights that mean nothing."""
        if isinstance(self.config, ViTConfig):
            return vit(self.config, seed=0)
        return attached(self.config, seed=0)


class _Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text, read as far as the family."""

    family: str
    config: msgspec.Raw


def describe(network: MultiExitNetwork) -> str:
    """The description of a network of a known family. Raises: UnsupportedModel."""
    if isinstance(network, VisionTransformer):
        return _text("vit", network.config)
    if isinstance(network, AttachedNetwork):
        return _text("attached", network.config)
    raise UnsupportedModel(
        f"{type(network).__name__} cannot be described", expected=f"a network of {_families()}"
    )


def _text(family: str, config: ViTConfig | AttachedConfig) -> str:
    return msgspec.json.encode({"family": family, "config": config}).decode()


def build(text: str) -> MultiExitNetwork:
    """The network that a description names, with weights that mean nothing. Raises: UnsupportedModel."""
    return read_description(text).build()


def read_description(text: str) -> Description:
    """Read a description, strictly. Raises: UnsupportedModel, saying what was wanted."""
    if len(text) > TEXT_CAP:
        raise _refused(f"it has {len(text)} characters, {TEXT_CAP} are allowed")
    config: ViTConfig | AttachedConfig
    try:
        described = msgspec.json.decode(text, type=_Text)
        if described.family not in FAMILIES:
            raise _refused(f"family {described.family[:40]!r} is unknown, known are {', '.join(FAMILIES)}")
        if described.family == "vit":
            named = msgspec.json.decode(described.config, type=dict[str, object])
            _refuse_unknown(named, {field.name: None for field in fields(ViTConfig)})
            config = msgspec.json.decode(described.config, type=ViTConfig)
            _refuse_excess(config)
        else:
            config = msgspec.json.decode(described.config, type=AttachedConfig)
            # Written out again it has every setting there is, at every level.
            known = msgspec.json.decode(msgspec.json.encode(config))
            _refuse_unknown(msgspec.json.decode(described.config), known)
            _refuse_excess_encoder(config)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _refused(str(error).replace("`", "")) from error
    return Description(described.family, config)


def _refuse_unknown(named: object, known: object) -> None:
    """Refuse settings that there are not, at whatever level."""
    if isinstance(named, list) and isinstance(known, list):
        for one, other in zip(named, known, strict=False):
            _refuse_unknown(one, other)
    if not (isinstance(named, dict) and isinstance(known, dict)):
        return
    for name, value in named.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f", did you mean {near[0]}?" if near else ""
            raise _refused(f"{name[:40]!r} is no setting{meant}")
        _refuse_unknown(value, known[name])


def _refuse_excess(config: ViTConfig) -> None:
    """Refuse numbers that no network has, before anything is made of them."""
    _refuse_counts(
        config.depth,
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
    if not 0.0 < config.mlp_ratio <= 64.0:
        raise _refused(f"mlp_ratio is {config.mlp_ratio}, not above 0 and at most 64")
    _refuse_fractions(config.head_dropout, config.std)


def _refuse_excess_encoder(config: AttachedConfig) -> None:
    """As above, for a backbone with exits."""
    backbone = config.backbone
    _refuse_counts(
        backbone.depth,
        ("image_height", backbone.image_height),
        ("image_width", backbone.image_width),
        ("patch_size", backbone.patch_size),
        ("in_chans", backbone.in_chans),
        ("num_classes", backbone.num_classes + 1),
        ("classes", config.answer.classes + 1),
        ("embed_dim", backbone.embed_dim),
        ("num_heads", backbone.num_heads),
        ("mlp_dim", backbone.mlp_dim),
        ("tokens", backbone.layout.num_tokens),
        *(("head_hidden_dims", each) for each in backbone.head_hidden_dims),
        *(("stem_dims", each) for each in backbone.stem_dims),
    )
    if not 0.0 < backbone.norm_eps < 1.0:
        raise _refused(f"norm_eps is {backbone.norm_eps}, not between 0 and 1")
    _refuse_fractions(backbone.head_dropout, backbone.std)


def _refuse_counts(depth: int, *counts: tuple[str, int]) -> None:
    for name, count in counts:
        if not 1 <= count <= NUMBER_CAP:
            raise _refused(f"{name} is {count}, not between 1 and {NUMBER_CAP}")
    if not 1 <= depth <= DEPTH_CAP:
        raise _refused(f"depth is {depth}, not between 1 and {DEPTH_CAP}")


def _refuse_fractions(dropout: float, std: tuple[float, ...]) -> None:
    if not 0.0 <= dropout < 1.0:
        raise _refused(f"head_dropout is {dropout}, not from 0 to below 1")
    if not all(each > 0.0 for each in std):
        raise _refused("a std is not above 0")


def _families() -> str:
    return f"the families {' and '.join(FAMILIES)}"


def _refused(complaint: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"the network's description is refused: {complaint}",
        expected="what edgeexit.models.description writes",
    )
