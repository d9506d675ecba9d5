"""A published backbone with exits behind some of its blocks, cut into stages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeexit.models.branch_config import AnswerConfig, BranchConfig
from edgeexit.models.encoder import EncoderEmbedding, EncoderHead, encoder_blocks, final_norm, initialise
from edgeexit.models.encoder_config import EncoderConfig
from edgeexit.models.exit_branch import Answer, ExitBranch
from edgeexit.models.protocol import IMAGE, State, run_exits
from edgeexit.models.vit import TOKENS

# What the exit before said, where exits are told: its plain numbers, before they become value and spread.
PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class AttachedConfig:
    """A backbone, and where which branches are.

    `after` counts blocks: (3, 6, 9) puts early exits after the 3rd, 6th and 9th block; `branches` are theirs,
    in the same order. The last exit is the backbone's own head where `final` is None, else that branch
    behind the backbone's last normalisation. With `transfer` every branch is told what the exit before said.
    """

    backbone: EncoderConfig
    after: tuple[int, ...]
    branches: tuple[BranchConfig, ...]
    answer: AnswerConfig
    final: BranchConfig | None = None
    transfer: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises: ValueError.
        """
        depth = self.backbone.depth
        rising = all(a < b for a, b in zip((0, *self.after), (*self.after, depth), strict=True))
        if not rising:
            raise ValueError(f"exits after blocks {list(self.after)} do not rise from 1 to below {depth}")
        if len(self.branches) != len(self.after):
            raise ValueError(f"{len(self.branches)} branches for {len(self.after)} early exits")
        layout = self.backbone.layout
        kinds = [branch.kind for branch in (*self.branches, self.final) if branch is not None]
        if min(layout.grid_height, layout.grid_width) < 2 and any(kind.startswith("cnn") for kind in kinds):
            raise ValueError(
                f"a grid of {layout.grid_height} × {layout.grid_width} patches cannot be pooled 2 × 2"
            )
        if self.final is None and self.answer.task == "regression":
            raise ValueError("a backbone's own head gives no spread: name a branch for the last exit")
        if self.final is None and self.answer.classes != self.backbone.num_classes:
            raise ValueError(
                f"the backbone's own head has {self.backbone.num_classes} classes, not {self.answer.classes}"
            )

    @property
    def ends(self) -> tuple[int, ...]:
        """How many blocks lie before each exit, the last one included. Shapes: (K,)."""
        return (*self.after, self.backbone.depth)


class OwnHead(nn.Module):
    """The backbone's own head as the last exit; it needs to be told nothing."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.head = EncoderHead(config)

    def forward(self, tokens: Tensor, previous: Tensor | None = None) -> Tensor:
        """Shapes: (B, P + N, D) to (B, classes)."""
        logits: Tensor = self.head(tokens)
        return logits


class AttachedStage(nn.Module):
    """From one exit to the next: the embedding in stage 0, blocks, branch.

    `branch` is the exit; `embedding`, `blocks` and `norm` are the backbone's.
    """

    def __init__(self, config: AttachedConfig, index: int) -> None:
        super().__init__()
        begins = (0, *config.after)
        backbone = config.backbone
        last = index == len(config.after)
        self.embedding = EncoderEmbedding(backbone) if index == 0 else None
        self.blocks = encoder_blocks(backbone, config.ends[index] - begins[index])
        self.norm = final_norm(backbone) if last and config.final is not None else nn.Identity()
        self.last = last
        # An own head listens to nobody, so that nothing is sent to it.
        self.tells = (
            config.transfer and not last and (index + 1 < len(config.after) or config.final is not None)
        )
        branch = config.final if last else config.branches[index]
        self.branch: nn.Module = (
            OwnHead(backbone)
            if branch is None
            else ExitBranch(branch, backbone.layout, config.answer, transfer=config.transfer and index > 0)
        )
        self.answer = Answer(config.answer)

    def forward(self, state: State) -> tuple[State, Tensor]:
        """Shapes: image (B, C, H, W), or tokens (B, P + N, D); the exit's output (B, outputs)."""
        tokens = self.run_blocks(state)
        numbers = self.branch(self.norm(tokens), state.get(PREVIOUS))
        following: State = {} if self.last else {TOKENS: tokens}
        if self.tells:
            following[PREVIOUS] = numbers
        output: Tensor = self.answer(numbers)
        return following, output

    def run_blocks(self, state: State) -> Tensor:
        """The backbone's part of this stage. Shapes: result (B, P + N, D)."""
        tokens = state[TOKENS] if self.embedding is None else self.embedding(state[IMAGE])
        deeper: Tensor = self.blocks(tokens)
        return deeper


class AttachedNetwork(nn.Module):
    """A backbone with exits; it keeps the MultiExitNetwork protocol."""

    stages: nn.ModuleList

    def __init__(self, config: AttachedConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(AttachedStage(config, index) for index in range(len(config.ends)))
        self.apply(initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Every exit's output. Shapes: image (B, C, H, W); each output (B, outputs)."""
        return run_exits(self, image)

    def attached_stages(self) -> Iterator[AttachedStage]:
        """The stages, as what they are."""
        for stage in self.stages:
            if not isinstance(stage, AttachedStage):  # a stage was replaced from outside
                raise TypeError(f"stage of type {type(stage).__name__}")
            yield stage

    @property
    def branches(self) -> tuple[nn.Module, ...]:
        """The exits' own parts, the last exit's too. Shapes: (K,)."""
        return tuple(stage.branch for stage in self.attached_stages())

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """What the model came with, all but the new branches; its own head too, if that is the last exit."""
        new = {
            id(parameter)
            for branch in self.branches
            if not isinstance(branch, OwnHead)
            for parameter in branch.parameters()
        }
        return (parameter for parameter in self.parameters() if id(parameter) not in new)

    def backbone_tokens(self, image: Tensor) -> Tensor:
        """What the last block gives, before any normalisation. Shapes: (B, C, H, W) to (B, P + N, D)."""
        state: State = {IMAGE: image}
        for stage in self.attached_stages():
            state = {TOKENS: stage.run_blocks(state)}
        return state[TOKENS]


def attached(config: AttachedConfig, *, seed: int) -> AttachedNetwork:
    """A network with weights drawn from `seed`; torch's own random state is left as it was.

    Raises: ValueError when a branch does not fit the grid of patches.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AttachedNetwork(config)
