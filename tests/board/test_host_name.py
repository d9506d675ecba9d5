"""The host's name becomes an id that may stand in a topic, whatever it is."""

from __future__ import annotations

import socket

import pytest

from edgeexit.board.host_name import host_id
from edgeexit.transport.topics import require_id


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("raspberrypi", "raspberrypi"),
        ("Küche_2.local", "k-che-2"),
        ("...", "gateway"),
        ("-" * 80, "gateway"),
        ("a" * 90, "a" * 64),
    ],
)
def test_any_host_name_becomes_an_id(monkeypatch: pytest.MonkeyPatch, name: str, expected: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert host_id("gateway") == expected
    assert require_id(expected, key="id") == expected
