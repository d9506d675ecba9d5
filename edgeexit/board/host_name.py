"""What this machine calls itself, in the letters that MQTT topics and file names bear."""

from __future__ import annotations

import re
import socket

# As long as an id in a topic may be.
LONGEST = 64


def host_id(otherwise: str) -> str:
    """The first label of the host's name, of a-z, 0-9 and hyphens; `otherwise` where nothing is left."""
    word = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().split(".")[0].lower())
    return word[:LONGEST].strip("-") or otherwise
