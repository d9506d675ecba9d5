"""Exits for a model that somebody already has: timm, Hugging Face, ONNX, or one of ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeexit.bundle.manifest import Task
from edgeexit.errors import CannotCut, ConfigError
from edgeexit.models.attached import AttachedConfig, AttachedNetwork, attached
from edgeexit.models.branch_config import BRANCH_KINDS, AnswerConfig, BranchConfig, BranchKind
from edgeexit.models.cut_hugging_face import cut_hugging_face, hugging_face_classes, is_hugging_face
from edgeexit.models.cut_onnx import cut_onnx
from edgeexit.models.cut_own import cut_own
from edgeexit.models.cut_timm import cut_timm, is_timm, timm_classes
from edgeexit.models.cutting import CutBackbone, check_same
from edgeexit.models.opening import open_model
from edgeexit.models.protocol import IMAGE, State, run_exits
from edgeexit.models.vit import TOKENS, VisionTransformer

# The last exit of a model that has no head of its own for this task.
FRESH_FINAL: BranchKind = "linear"


@dataclass(frozen=True, slots=True)
class _Source:
    """A model, or the file of one that is no torch module; `classes` of its own head, 0 without one."""

    model: nn.Module | Path
    classes: int

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.model.name if isinstance(self.model, Path) else type(self.model).__name__


def attach_exits(
    model: nn.Module | str | Path,
    after: Sequence[int],
    branch: BranchKind | Sequence[BranchKind] = "mlp",
    *,
    task: Task = "classification",
    classes: int | None = None,
    value_offset: float = 0.0,
    value_scale: float = 1.0,
    final: BranchKind | None = None,
    transfer: bool = False,
    dropout: float = 0.1,
    image_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    checkpoint: Path | None = None,
    download: bool = False,
    seed: int = 0,
) -> AttachedNetwork:
    """A multi-exit network that computes, block by block, what the model computes.

    `model` is a torch module, a folder or file on disk, or a name that its library knows: an architecture of
    timm together with `checkpoint`, or a name on a hub with `download=True`; nothing is fetched otherwise.
    `after` counts blocks: [3, 6, 9] puts exits after the 3rd, 6th and 9th; `branch` is one kind for all of
    them or one for each. The last exit is the model's own head where it has one for this task, else `final`
    ("linear" where that is None too). `image_size` resamples positions for good. `mean` and `std`, one value
    a channel, replace those that the model names or its family is known for. New branches are drawn from
    `seed`; the model itself is left as it was.

    Raises: ConfigError when an argument does not fit, CannotCut when the model does not, DataError when a
    file cannot be read, MissingExtra.
    """
    kinds = (branch,) * len(after) if isinstance(branch, str) else tuple(branch)
    for kind in (*kinds, *((final,) if final is not None else ())):
        if kind not in BRANCH_KINDS:
            raise ConfigError(
                f"branch {kind!r} is unknown",
                key="branch",
                why=f"known: {', '.join(BRANCH_KINDS)}",
                fix="choose a known one",
            )
    source = _open(model, checkpoint, download)
    own_head = final is None and source.classes > 0 and task == "classification"
    answer = _answer(source, own_head, task, classes, value_offset, value_scale)
    cut = _cut(
        source,
        own_head=own_head,
        image_size=(image_size, image_size) if isinstance(image_size, int) else image_size,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
    )
    depth = cut.config.depth
    rising = all(a < b for a, b in zip((0, *after), (*after, depth), strict=True))
    if not rising:
        raise ConfigError(
            f"exits after blocks {list(after)} do not fit a model of {depth} blocks",
            key="after",
            why=f"they must rise from 1 to {depth - 1}; the last exit is after block {depth} anyway",
            fix=f"name early exits alone, as {[depth * part // 4 for part in (1, 2, 3)]}"
            if depth > 3
            else None,
        )
    try:
        config = AttachedConfig(
            cut.config,
            after=tuple(after),
            branches=tuple(BranchConfig(kind, dropout) for kind in kinds),
            answer=answer,
            final=None if own_head else BranchConfig(final or FRESH_FINAL, dropout),
            transfer=transfer,
        )
        network = attached(config, seed=seed)
    except ValueError as error:
        raise ConfigError(
            f"exits cannot be attached to {source.name} so", key="branch", why=str(error)
        ) from error
    _fill(network, cut.weights, source.name)
    network.eval()
    check_same(cut, lambda image: _same_part(network, image, own_head), source.name)
    return network


def _open(model: nn.Module | str | Path, checkpoint: Path | None, download: bool) -> _Source:
    if isinstance(model, nn.Module):
        if checkpoint is not None or download:
            raise ConfigError(
                "a model object has its weights already",
                key="checkpoint" if checkpoint is not None else "download",
                why="they would be put in the place of those that it has",
                fix="give the model alone, or the name of an architecture and its checkpoint",
            )
        opened: nn.Module | Path = model
    else:
        opened = open_model(model, checkpoint=checkpoint, download=download)
    if isinstance(opened, Path):
        return _Source(opened, classes=0)
    if isinstance(opened, VisionTransformer):
        return _Source(opened, classes=opened.config.num_classes)
    if is_timm(opened):
        return _Source(opened, classes=timm_classes(opened))
    if is_hugging_face(opened):
        return _Source(opened, classes=hugging_face_classes(opened))
    raise CannotCut(
        model=type(opened).__name__,
        why="it is no VisionTransformer of timm, no ViT, DeiT or DINOv2 of transformers, and none of ours",
    )


def _answer(
    source: _Source, own_head: bool, task: Task, classes: int | None, offset: float, scale: float
) -> AnswerConfig:
    """What the exits answer. Raises: ConfigError when classes are missing, too many, or not the head's."""
    if own_head and classes not in (None, source.classes):
        raise ConfigError(
            f"{classes} classes for a head of {source.classes}",
            key="classes",
            why=f"the last exit is the head that {source.name} came with",
            fix="leave classes out, or give final='linear' to put a fresh last exit there",
        )
    try:
        if task == "regression":
            return AnswerConfig(task, classes or 0, offset, scale)
        return AnswerConfig(task, source.classes if classes is None else classes)
    except ValueError as error:
        raise ConfigError(
            "exits of that kind cannot be made",
            key="classes",
            why=str(error),
            fix="give classes=… for a classification, none for a regression",
        ) from error


def _cut(
    source: _Source,
    *,
    own_head: bool,
    image_size: tuple[int, int] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> CutBackbone:
    """The model in parts. Raises: CannotCut, ConfigError, DataError."""
    model = source.model
    try:
        if isinstance(model, Path):
            return cut_onnx(model, image_size=image_size, mean=mean, std=std)
        if isinstance(model, VisionTransformer):
            if (image_size, mean, std) != (None, None, None):
                raise ConfigError(
                    "a ViT of ours keeps its image size, mean and deviation",
                    key="image_size",
                    why="its own configuration says them",
                    fix="leave image_size, mean and std out",
                )
            return cut_own(model, own_head=own_head)
        cut = cut_timm if is_timm(model) else cut_hugging_face
        return cut(model, own_head=own_head, image_size=image_size, mean=mean, std=std)
    except ValueError as error:
        # EncoderConfig refused the numbers: an image size that is no multiple of the patches, mostly.
        raise ConfigError(
            f"{source.name} cannot be used so",
            key="image_size",
            why=str(error),
            fix="give an image_size that its patches fill, and mean and std for each channel",
        ) from error


def _fill(network: AttachedNetwork, weights: dict[str, Tensor], model: str) -> None:
    """Put the backbone's weights where they belong, all of them and nothing else. Raises: CannotCut."""
    last = len(network.stages) - 1
    own_head = network.config.final is None
    names: dict[str, str] = {}
    index = 0
    for k, stage in enumerate(network.attached_stages()):
        for inside in range(len(stage.blocks)):
            names[f"blocks.{index}."] = f"stages.{k}.blocks.{inside}."
            index += 1
    names["embedding."] = "stages.0.embedding."
    names["head."] = f"stages.{last}.branch.head."
    names["norm."] = f"stages.{last}.branch.head.norm." if own_head else f"stages.{last}.norm."
    placed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        begin = next(begin for begin in names if name.startswith(begin))
        placed[names[begin] + name[len(begin) :]] = tensor
    state = network.state_dict()
    known = {id(parameter) for parameter in network.backbone_parameters()}
    wanted = {name for name, parameter in network.named_parameters() if id(parameter) in known}
    wanted |= {name for name, _ in network.named_buffers() if name in state and ".embedding." in name}
    if set(placed) != wanted:
        odd = sorted(set(placed) ^ wanted)
        raise CannotCut(model=model, why=f"its tensors are not those expected: {', '.join(odd[:4])}")
    for name, tensor in placed.items():
        if tensor.shape != state[name].shape:
            shapes = f"{list(tensor.shape)}, {list(state[name].shape)} is expected"
            raise CannotCut(model=model, why=f"{name} has the shape {shapes}")
    network.load_state_dict(state | placed)


def _same_part(network: AttachedNetwork, image: Tensor, own_head: bool) -> Tensor:
    """What must be the model's own output: the last exit, or the tokens behind the last normalisation."""
    with torch.no_grad():
        if own_head:
            return run_exits(network, image)[-1]
        state: State = {IMAGE: image}
        for stage in network.attached_stages():
            state = {TOKENS: stage.run_blocks(state)}
        tokens: Tensor = stage.norm(state[TOKENS])
        return tokens
