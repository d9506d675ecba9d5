"""Whether a board takes a bundle: asked before anything is changed on it."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from edgeexit.board.settings import LARGEST_TOML_BYTES, decode_settings, parse_toml
from edgeexit.bundle.encoding import MANIFEST_CAP_BYTES, MANIFEST_FILE, decode_manifest, encode_manifest
from edgeexit.bundle.manifest import Manifest
from edgeexit.bundle.store import Bundle
from edgeexit.bundle.trust import Trust, TrustSettings
from edgeexit.deploy import layout
from edgeexit.deploy.board import Board, BoardFile
from edgeexit.errors import BundleError, ConfigError


def check_welcome(bundle: Bundle, board: Board, files: Sequence[BoardFile], *, allow_older: bool) -> None:
    """Refuse what the board, configured as it will be, would refuse, and what is older than what it has.

    Raises: NotSigned, SignatureError, OlderSerial, ConfigError, DeployError, MissingExtra.
    """
    trust = trust_on(board, files)
    trust.check_bytes(encode_manifest(bundle.manifest), bundle.signature)
    trust.check_manifest(bundle.manifest, bundle.signature)
    standing = _standing(board)
    if not allow_older and standing is not None and standing.name == bundle.manifest.name:
        Trust(least_serials=MappingProxyType({standing.name: standing.serial})).check_manifest(
            bundle.manifest, None
        )


def trust_on(board: Board, files: Sequence[BoardFile]) -> Trust:
    """Whom the board will trust: its configuration, as it will be, and what lies in `conf.d` beside it.

    Raises: ConfigError, DeployError.
    """
    own = board.read(layout.CONFIG, LARGEST_TOML_BYTES)
    for file in files:
        if file.path == layout.CONFIG and (own is None or not file.keep):
            own = file.content
    layers = [] if own is None else [(layout.CONFIG, own)]
    for name in board.names(layout.CONFIG_EXTRAS):
        path = f"{layout.CONFIG_EXTRAS}/{name}"
        extra = board.read(path, LARGEST_TOML_BYTES) if name.endswith(".toml") else None
        if extra is not None:
            layers.append((path, extra))
    merged: dict[str, object] = {}
    for path, content in layers:
        table = parse_toml(content, file=f"{board.name}:{path}").get("trust", {})
        if not isinstance(table, dict):
            raise ConfigError(
                "trust is no table",
                file=path,
                key="trust",
                why="it has a value there, where settings below it are wanted",
                fix="begin it with [trust]",
            )
        for key, value in table.items():
            below = merged.get(key)
            # As the daemon reads them: serials join name by name, a later list of keys replaces an earlier.
            if isinstance(below, dict) and isinstance(value, dict):
                value = below | value
            merged[key] = value
    return decode_settings(merged, TrustSettings, file=f"{board.name}, table [trust]").trust()


def _standing(board: Board) -> Manifest | None:
    """The bundle that serves now; None where there is none, or none that can be read."""
    if board.link(layout.CURRENT) is None:
        return None
    data = board.read(f"{layout.CURRENT}/{MANIFEST_FILE}", MANIFEST_CAP_BYTES)
    try:
        return None if data is None else decode_manifest(data)
    except BundleError:
        return None
