"""A request on its way through the gateway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeexit.gateway.loaded import LoadedBundle
from edgeexit.gateway.serve import Served
from edgeexit.transport.wire import Frame

Reply = Callable[[bytes | None, int], None]
"""Takes the reply to one message, once: None where none is due; then how many seconds it is of use."""


@dataclass(frozen=True, slots=True)
class Request:
    """An admitted request: its frame, the bundle it is for, and the way back.

    `served` is how far it has come, None while it was never begun.
    Units: compute_ms, spent on it until now.
    """

    frame: Frame
    loaded: LoadedBundle
    reply: Reply
    served: Served | None = None
    compute_ms: float = 0.0

    @property
    def stop(self) -> int:
        """One past the last stage asked for."""
        return min(self.frame.header.stage_out + 1, self.loaded.stage_count)
