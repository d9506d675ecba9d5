"""The gateway's configuration: what is wrong is named, with file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeexit.board.host_name import host_id
from edgeexit.errors import ConfigError
from edgeexit.gateway.config import GatewayConfig, read_config
from edgeexit.transport.topics import require_id


def test_flags_override_the_file_and_none_does_not(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[gateway]\nstore = "bundles"\nid = "gw-1"\nqueue_limit = 4\n', encoding="utf-8")
    config = read_config(file, {"id": "gw-2", "queue_limit": None})
    assert config == GatewayConfig(store=Path("bundles"), id="gw-2", queue_limit=4)


def test_id_is_this_host_by_default() -> None:
    assert GatewayConfig(store=Path("bundles")).id == host_id("gateway")
    assert require_id(host_id("gateway"), key="id")


def test_workers_default_to_processors_per_thread() -> None:
    assert GatewayConfig(store=Path("b"), concurrency=3, threads=4).workers == 3
    assert GatewayConfig(store=Path("b"), threads=1024).workers == 1


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[gateway]\nstor = "b"', "stor"),
        ('[gateway]\nid = "gw-1"', "store"),
        ('[gateway]\nstore = "b"\nid = "Living Room"', "id"),
        ('[gateway]\nstore = "b"\nthreads = 0', "threads"),
        ('[gateway]\nstore = "b"\nqueue_limit = 100000', "queue_limit"),
        ('[gatewy]\nstore = "b"', "gatewy"),
    ],
)
def test_wrong_key_is_named(tmp_path: Path, text: str, key: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_config(file, {})
    assert caught.value.key == key
    assert caught.value.file == str(file)


@pytest.mark.parametrize("text", ["[gateway", "store = 'top'", "[gateway]\nstore = 3", "#" * 70_000])
def test_unreadable_file_is_one_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_config(file, {})
    assert caught.value.file == str(file)


def test_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_config(tmp_path / "absent.toml", {})
