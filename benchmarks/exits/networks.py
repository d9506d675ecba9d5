"""Networks of the comparison: the backbone alone, the same with exits, and a branch without a backbone."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.exits.settings import Settings
from benchmarks.exits.tasks import Task
from edgeexit.models.attached import AttachedConfig, AttachedNetwork, attached
from edgeexit.models.branch_config import AnswerConfig, BranchConfig, BranchKind
from edgeexit.models.encoder import initialise
from edgeexit.models.exit_branch import Answer, ExitBranch
from edgeexit.models.protocol import IMAGE, State
from edgeexit.models.tokens import TokenLayout
from edgeexit.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint, settings_key
from edgeexit.training.data import Samples
from edgeexit.training.loop import TrainingConfig, train

# Dropout fits long training; on so few canvases it costs every network the same points.
DROPOUT = 0.0
# A forward run of so many canvases fits the caches of a board as well as of a server.
BATCH = 500


def with_exits(settings: Settings, answer: AnswerConfig, ends: tuple[int, ...], seed: int) -> AttachedNetwork:
    """The backbone with MLP exits after these blocks; the backbone alone where only the last is named."""
    branch = BranchConfig("mlp", DROPOUT)
    config = AttachedConfig(
        settings.network, ends[:-1], (branch,) * (len(ends) - 1), answer=answer, final=branch
    )
    return attached(config, seed=seed)


def backbone_alone(settings: Settings, task: Task, seed: int, folder: Path) -> AttachedNetwork:
    """The backbone trained with its last exit only, or read from where an earlier run has left it."""
    network = with_exits(settings, task.answer, settings.ends[-1:], seed)
    config = TrainingConfig(
        settings.network_samples,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
    )
    given: list[object] = [settings.network, settings.clutter, settings.counting, settings.held_out]
    key = settings_key([task.name, config, *given])
    path = checkpoint_path(folder, f"backbone-{task.name}", key)
    if load_checkpoint(network, path, key=key) is None:
        train(network, task.source, config, clock_s=time.process_time, progress=lambda _: None)
        save_checkpoint(network, path, key=key, notes={})
    network.stages.eval()
    return network


@torch.no_grad()
def tokens_after(network: AttachedNetwork, samples: Samples, ends: tuple[int, ...]) -> list[Samples]:
    """What a backbone alone passes on after these blocks, in place of the images.

    Shapes: images (N, C, H, W) to tokens K of (N, P + N, D).
    """
    (stage,) = network.attached_stages()
    parts: list[list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = [[] for _ in ends]
    for start in range(0, len(samples), BATCH):
        image = torch.from_numpy(samples.images[start : start + BATCH])
        assert stage.embedding is not None  # it is the first stage
        tokens: Tensor = stage.embedding(image)  # b C H W -> b T D
        for done, block in enumerate(stage.blocks, start=1):
            tokens = block(tokens)
            if done in ends:
                parts[ends.index(done)].append(tokens.numpy())
    return [
        Samples(np.concatenate(part), samples.targets, f"{samples.name} after {end}")  # of b T D -> N T D
        for part, end in zip(parts, ends, strict=True)
    ]


class BranchStage(nn.Module):
    """A branch as a whole network's only stage: boundary 0 is the tokens that its backbone passes on."""

    def __init__(self, kind: BranchKind, layout: TokenLayout, answer: AnswerConfig) -> None:
        super().__init__()
        self.branch = ExitBranch(BranchConfig(kind, DROPOUT), layout, answer, transfer=False)
        self.answer = Answer(answer)

    def forward(self, state: State) -> tuple[State, Tensor]:
        """Shapes: tokens (B, P + N, D) to (B, outputs)."""
        output: Tensor = self.answer(self.branch(state[IMAGE]))
        return {}, output


class BranchAlone(nn.Module):
    """A branch behind a frozen backbone whose tokens are kept; it keeps the MultiExitNetwork protocol."""

    stages: nn.ModuleList

    def __init__(self, kind: BranchKind, layout: TokenLayout, answer: AnswerConfig, *, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stages = nn.ModuleList([BranchStage(kind, layout, answer)])
            self.apply(initialise)

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: (B, P + N, D) to (B, outputs)."""
        _, output = self.stages[0]({IMAGE: tokens})
        answer: Tensor = output
        return answer
