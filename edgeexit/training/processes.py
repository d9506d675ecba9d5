"""Several processes that train one network, as torchrun starts them; by torch's own calls only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


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


def join_processes() -> Processes:
    """Join the group that torchrun describes in the environment; alone without torchrun.

    With GPUs each process takes the one of its local rank.
    """
    if not distributed.is_torchelastic_launched():
        return Processes()
    cuda = torch.cuda.is_available()
    distributed.init_process_group("nccl" if cuda else "gloo")
    if cuda:
        torch.cuda.set_device(distributed.get_node_local_rank())
    return Processes.here()
