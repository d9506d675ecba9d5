"""Several processes that train one network, as torchrun starts them; by torch's own calls only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from edgeexit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes train together, and which of them this is."""

    count: int = 1
    rank: int = 0

    @classmethod
    def here(cls) -> Processes:
        """Those that torch.distributed knows, if its group was initialised; else this one alone."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_world_size(), distributed.get_rank())

    def wrapped(self, module: nn.Module) -> nn.Module:
        """The module, or with several processes one whose gradients are the mean of theirs."""
        if self.count == 1:
            return module
        device = next(module.parameters()).device
        return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.count > 1:
            distributed.barrier()

    def agree(self, number: int, device: torch.device) -> None:
        """Make sure that all processes are at the same batch. Raises: ConfigError."""
        if self.count == 1:
            return
        ends = torch.tensor([number, -number], device=device)
        distributed.all_reduce(ends, distributed.ReduceOp.MAX)
        most, least = int(ends[0]), -int(ends[1])
        if most != least:
            raise ConfigError(
                "the processes do not go on from the same batch",
                key="work",
                why=f"one is at batch {least}, another at {most}: not all of them see the snapshot",
                fix="give --work a folder that all machines share",
            )


def leave_processes() -> None:
    """Leave the group that was joined; without one nothing happens."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def join_processes(device: str | None = None) -> Processes:
    """Join the group that torchrun describes in the environment; alone without torchrun.

    With GPUs each process takes the one of its local rank, unless `device` is cpu.
    """
    if not distributed.is_torchelastic_launched():
        return Processes()
    cuda = torch.cuda.is_available() and device != "cpu"
    distributed.init_process_group("nccl" if cuda else "gloo")
    if cuda:
        torch.cuda.set_device(distributed.get_node_local_rank())
    return Processes.here()
