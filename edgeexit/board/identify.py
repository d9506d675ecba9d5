"""Which board this is."""

from __future__ import annotations

from pathlib import Path

from edgeexit.board.files import board_names
from edgeexit.board.profile import Profile, read_profile
from edgeexit.board.sysfs import read_text

GENERIC = "generic-linux"


def board_model(root: Path) -> str | None:
    """What the firmware calls this board, such as `Raspberry Pi 4 Model B Rev 1.4`; None on a PC."""
    for place in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        model = read_text(root / place)
        if model:
            return model
    return None


def identify(root: Path = Path("/")) -> Profile:
    """The profile whose marks fit this board best, else that of a generic Linux machine.

    Raises: ConfigError when a profile cannot be read.
    """
    model = board_model(root)
    if model is None:
        return read_profile(GENERIC)
    # The longest prefix wins: "Raspberry Pi 4" must not be taken for a profile of "Raspberry Pi".
    best: tuple[int, Profile] | None = None
    for name in board_names():
        profile = read_profile(name)
        for prefix in profile.identity.model_prefixes:
            fits = model.startswith(prefix)
            if (
                fits
                and all((root / file.lstrip("/")).exists() for file in profile.identity.files)
                and (best is None or len(prefix) > best[0])
            ):
                best = (len(prefix), profile)
    return read_profile(GENERIC) if best is None else best[1]
