"""How long each branch takes on LiteRT, beside one block of the backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.exits.branches import SEVEN
from benchmarks.exits.networks import BranchAlone, with_exits
from benchmarks.exits.settings import Settings
from edgeexit.convert.lowering import lower_module
from edgeexit.models.branch_config import AnswerConfig, BranchKind
from edgeexit.runner.runtime import Interpreter, find_runtime

# Models take turns so that whatever else the machine does falls on all of them; a median over so many turns
# is steady to about a hundredth.
ROUNDS = 400
WARM_UP_ROUNDS = 20
# One run of the smallest is shorter than the clock's and the call's own noise.
RUNS_A_ROUND = 5

EMBEDDING, BLOCK = "embedding", "block"


@dataclass(frozen=True, slots=True)
class Timed:
    """One part on one thread. Units: ms, median; ratio, to one block in the same turn, median."""

    part: str
    task: str | None
    ms: float
    ratio: float


class _Named(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, given: Tensor) -> dict[str, Tensor]:
        return {"output": self.part(given)}


def timed_parts(
    settings: Settings,
    answers: dict[str, AnswerConfig],
    folder: Path,
    say: Callable[[str], None],
    *,
    kinds: tuple[BranchKind, ...] = SEVEN,
    rounds: int = ROUNDS,
) -> tuple[Timed, ...]:
    """Embedding, block and every branch, converted and then timed in turns. Weights do not matter to time.

    Raises: LoweringError, MissingExtra.
    """
    network = settings.network
    backbone = with_exits(settings, next(iter(answers.values())), settings.ends, seed=0)
    first = next(backbone.attached_stages())
    assert first.embedding is not None  # it is the first stage
    image = torch.zeros(1, network.in_chans, network.image_height, network.image_width)
    with torch.no_grad():
        tokens: Tensor = first.embedding.eval()(image)
    parts: dict[tuple[str, str | None], tuple[nn.Module, Tensor]] = {
        (EMBEDDING, None): (first.embedding, image),
        (BLOCK, None): (first.blocks[0], tokens),
    }
    for task, answer in answers.items():
        for kind in kinds:
            parts[kind, task] = BranchAlone(kind, network.layout, answer, seed=0), tokens
    folder.mkdir(parents=True, exist_ok=True)
    models: dict[tuple[str, str | None], _Model] = {}
    for number, (name, (module, given)) in enumerate(parts.items()):
        path = folder / f"{number:02}-{name[0]}.tflite"
        path.write_bytes(lower_module(_Named(module).eval(), {"given": given.numpy()}, 0))
        models[name] = _Model(path, given.numpy())
        say(f"converted {' for '.join(word for word in name if word is not None)}")
    return _measured(models, rounds)


class _Model:
    """One file in one interpreter on one thread."""

    def __init__(self, path: Path, given: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
        self._interpreter: Interpreter = find_runtime().make(path, 1)
        self._interpreter.allocate_tensors()
        (taken,) = self._interpreter.get_input_details()
        self._interpreter.set_tensor(int(str(taken["index"])), given)

    def run_ms(self) -> float:
        began_s = perf_counter()
        for _ in range(RUNS_A_ROUND):
            self._interpreter.invoke()
        return (perf_counter() - began_s) * 1000.0 / RUNS_A_ROUND


def _measured(models: dict[tuple[str, str | None], _Model], rounds: int) -> tuple[Timed, ...]:
    turns: dict[tuple[str, str | None], list[float]] = {name: [] for name in models}
    for number in range(WARM_UP_ROUNDS + rounds):
        for name, model in models.items():
            taken_ms = model.run_ms()
            if number >= WARM_UP_ROUNDS:
                turns[name].append(taken_ms)
    blocks = turns[BLOCK, None]
    return tuple(
        Timed(
            part,
            task,
            round(median(taken), 5),
            round(median(a / b for a, b in zip(taken, blocks, strict=True)), 3),
        )
        for (part, task), taken in turns.items()
    )
