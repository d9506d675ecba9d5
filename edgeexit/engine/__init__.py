"""The one inference loop: stage by stage, decision by decision, always an answer by the deadline."""

from edgeexit.engine.frame import Frame
from edgeexit.engine.loop import Engine

__all__ = ["Engine", "Frame"]
