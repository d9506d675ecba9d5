"""What tests of training share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Threads of networks this small spend their time waiting for each other."""
    torch.set_num_threads(1)
