"""Where things lie on a board. Paths are absolute as the board sees them, with forward slashes."""

from __future__ import annotations

STATE = "/var/lib/edgeexit"
BUNDLES = f"{STATE}/bundles"
CURRENT = f"{STATE}/current"
PREVIOUS = f"{STATE}/previous"
CONFIG = "/etc/edgeexit/config.toml"
CONFIG_EXTRAS = "/etc/edgeexit/conf.d"
UNIT = "/etc/systemd/system/edgeexit-device.service"


def bundle_directory(short_digest: str) -> str:
    """Where a bundle lies once it is complete."""
    return f"{BUNDLES}/{short_digest}"


def staging_directory(short_digest: str) -> str:
    """Where a bundle lies while it is being sent; complete files in it are kept for the next try."""
    return f"{BUNDLES}/{short_digest}.part"


def link_target(short_digest: str) -> str:
    """What `current` and `previous` point to: relative, so that the tree may be mounted anywhere."""
    return f"bundles/{short_digest}"
