"""Secret keys are locked, private, never replaced, and told apart from everything else."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeexit.bundle.secret_key import (
    _scrypt_parameters,
    encode_secret_key,
    generate_key,
    is_locked,
    parse_secret_key,
    read_key_text,
    write_key_pair,
)
from edgeexit.errors import KeyFileError

# The least that scrypt takes: these tests are of the format, not of its cost.
CHEAP = {"operations": 32_768, "memory_bytes": 2**20}


def test_a_key_comes_back_with_its_passphrase_and_without_it_never() -> None:
    key = generate_key()
    text = encode_secret_key(key, "correct horse, gr\u00fc\u00dfe", **CHEAP)
    assert is_locked(text, file="key")
    assert parse_secret_key(text, "correct horse, gr\u00fc\u00dfe", file="key") == key
    for wrong in ("", "correct horse", "Correct horse, gr\u00fc\u00dfe"):
        with pytest.raises(KeyFileError, match="passphrase is wrong"):
            parse_secret_key(text, wrong, file="key")
    with pytest.raises(KeyFileError, match="needs its passphrase"):
        parse_secret_key(text, None, file="key")
    assert base64.b64decode(text.splitlines()[1]).find(key.seed) == -1


def test_an_open_key_needs_no_passphrase() -> None:
    key = generate_key()
    text = encode_secret_key(key, None)
    assert not is_locked(text, file="key")
    assert parse_secret_key(text, None, file="key") == key


def test_every_key_is_another() -> None:
    assert generate_key() != generate_key()
    key = generate_key()
    assert encode_secret_key(key, "x", **CHEAP) != encode_secret_key(key, "x", **CHEAP)


def test_a_key_does_not_show_its_secret_when_it_is_printed() -> None:
    key = generate_key()
    assert repr(key) == f"SecretKey({key.public.name})"


def test_scrypt_is_given_what_libsodium_would_give_it() -> None:
    # minisign's own files: "sensitive", 1 GiB; then "interactive", and what is too little is raised.
    assert _scrypt_parameters(33_554_432, 1_073_741_824) == (2**20, 1)
    assert _scrypt_parameters(524_288, 16_777_216) == (2**14, 1)
    assert _scrypt_parameters(2**22, 2**27) == (2**17, 1)
    assert _scrypt_parameters(0, 2**30) == (2**10, 1)


def test_a_key_that_asks_for_all_memory_is_refused_before_any_is_taken() -> None:
    packed = bytearray(base64.b64decode(encode_secret_key(generate_key(), "x", **CHEAP).splitlines()[1]))
    packed[46:54] = (2**40).to_bytes(8, "little")
    text = f"untrusted comment: x\n{base64.b64encode(packed).decode()}\n"
    with pytest.raises(KeyFileError, match="MiB"):
        parse_secret_key(text, "x", file="key")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_open_key_is_refused_or_is_the_same(data: st.DataObject) -> None:
    key = generate_key()
    packed = bytearray(base64.b64decode(encode_secret_key(key, None).splitlines()[1]))
    index = data.draw(st.integers(0, len(packed) - 1))
    packed[index] ^= data.draw(st.integers(1, 255))
    text = f"untrusted comment: x\n{base64.b64encode(packed).decode()}\n"
    try:
        read = parse_secret_key(text, None, file="key")
    except KeyFileError:
        return
    # Salt, costs and checksum of a key that is not locked are not looked at; its id is only a name.
    assert (read.seed, read.point) == (key.seed, key.point)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_text_that_is_no_secret_key_is_refused(text: str) -> None:
    with pytest.raises(KeyFileError):
        parse_secret_key(text, "x", file="key")


def test_files_are_private_and_never_replaced(tmp_path: Path) -> None:
    secret, public = tmp_path / "deep" / "a.key", tmp_path / "deep" / "a.pub"
    write_key_pair(secret, "secret", public, "public")
    assert secret.stat().st_mode & 0o777 == 0o600
    assert public.stat().st_mode & 0o777 == 0o644
    for other in (tmp_path / "b.key", secret):
        with pytest.raises(KeyFileError, match="there already"):
            write_key_pair(other, "other", public if other != secret else tmp_path / "b.pub", "other")
    assert not (tmp_path / "b.key").exists()
    assert not (tmp_path / "b.pub").exists()
    assert (secret.read_text(), public.read_text()) == ("secret", "public")


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "a.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="there already"):
        write_key_pair(tmp_path / "a.key", "secret", tmp_path / "a.pub", "public")
    assert not (tmp_path / "elsewhere").exists()


def test_files_that_are_no_text_or_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_key_text(tmp_path / "nowhere")
    (tmp_path / "large").write_bytes(b"x" * 5000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("large", "binary"):
        with pytest.raises(KeyFileError, match="no secret key"):
            read_key_text(tmp_path / name)
