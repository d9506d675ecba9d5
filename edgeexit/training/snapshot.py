"""Training put down and taken up again: everything that the next step depends on, in one file."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edgeexit.errors import DataError

# Raise it when a snapshot's content changes.
SNAPSHOT_REVISION = 2


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Where snapshots go and how often. `key` names the settings: another key's snapshot is refused."""

    path: Path
    key: str
    # Writing takes well below a second for a ViT-S; a minute is what a kill may cost.
    every_s: float = 60.0

    def remove(self) -> None:
        """Forget the snapshot: its training has ended."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Training between two steps. Units: number, batches done; phase, index of the phase it is in.

    The sampler's position is `number`: every batch is a function of it.
    """

    number: int
    elapsed_s: float
    phase: int
    model: dict[str, Tensor]
    optimizers: list[dict[str, object]]
    average: dict[str, Tensor]
    average_steps: int
    weighting: dict[str, object]
    scaler: dict[str, object]
    random_states: list[Tensor]


def save_snapshot(snapshot: Snapshot, where: Snapshots) -> None:
    """Write it whole or not at all. Raises: OSError."""
    where.path.parent.mkdir(parents=True, exist_ok=True)
    part = where.path.with_name(f"{where.path.name}.{os.getpid()}.part")
    content = {"revision": SNAPSHOT_REVISION, "key": where.key} | {
        name: getattr(snapshot, name) for name in Snapshot.__dataclass_fields__
    }
    try:
        with part.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(where.path)
    finally:
        part.unlink(missing_ok=True)


def load_snapshot(where: Snapshots) -> Snapshot | None:
    """The snapshot, or None where there is none.

    Raises: DataError when the file is damaged or was made with other settings.
    """
    if not where.path.is_file():
        return None

    def unusable(why: str) -> DataError:
        return DataError(
            f"{where.path.name} is no usable snapshot",
            file=str(where.path),
            why=why,
            fix="delete it; training then begins anew",
        )

    try:
        content = torch.load(where.path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise unusable(str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    if not isinstance(content, dict) or content.get("revision") != SNAPSHOT_REVISION:
        raise unusable("it is none of this version")
    if content.get("key") != where.key:
        raise unusable("it was made with other settings")
    kinds: dict[str, type] = {
        "number": int, "elapsed_s": float, "phase": int, "model": dict, "optimizers": list,
        "average": dict, "average_steps": int, "weighting": dict, "scaler": dict,
        "random_states": list,
    }  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(content.get(name), kind):
            raise unusable(f"it has no {name}")
    return Snapshot(**{name: content[name] for name in kinds})
