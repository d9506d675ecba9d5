"""Broker addresses and credentials: what is accepted, and how a refusal reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.errors import ConfigError
from edgeexit.transport.address import BrokerAddress, Credentials, parse_broker


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mqtt://broker.local", BrokerAddress("broker.local", 1883)),
        ("mqtt://10.0.0.1:1884", BrokerAddress("10.0.0.1", 1884)),
        ("mqtts://broker.local", BrokerAddress("broker.local", 8883, tls=True)),
        ("mqtts://broker.local:443/", BrokerAddress("broker.local", 443, tls=True)),
        ("broker.local:1885", BrokerAddress("broker.local", 1885)),
        ("mqtt://[::1]:1883", BrokerAddress("::1", 1883)),
    ],
)
def test_an_address_is_read(text: str, address: BrokerAddress) -> None:
    assert parse_broker(text) == address
    assert parse_broker(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://broker",
        "mqtt://",
        "mqtt://host:port",
        "mqtt://host:99999",
        "mqtt://host:0",
        "mqtt://host/topic",
    ],
)
def test_anything_else_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_broker(text)
    assert caught.value.fix is not None


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_broker("mqtt://me:secret@host")
    assert "secret" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_config_error(text: str) -> None:
    try:
        assert parse_broker(text).port > 0
    except ConfigError:
        return


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("broker.local", False)],
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    assert BrokerAddress(host).loopback is loopback


def test_a_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("open sesame\nsecond line\n", encoding="utf-8")
    assert Credentials("porch-1", secret).password() == "open sesame"
    assert Credentials("porch-1").password() is None
    with pytest.raises(ConfigError) as caught:
        Credentials("porch-1", tmp_path / "missing").password()
    assert caught.value.file == str(tmp_path / "missing")
