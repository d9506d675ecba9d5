"""Keys and signatures are minisign's: read as the tool writes them, refused when anything is off."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeexit.bundle.minisign import (
    SIGNATURE_CAP_BYTES,
    PublicKey,
    Signature,
    decode_signature,
    encode_signature,
    parse_public_key,
)
from edgeexit.bundle.sign import Statement, covers, read_statement
from edgeexit.errors import KeyFileError, SignatureError

# Made by minisign 0.11: `minisign -G -W`, then `minisign -S -m message.txt`, the second time with -l.
MADE = Path(__file__).parents[1] / "data" / "minisign"
MESSAGE = (MADE / "message.txt").read_bytes()


def public_key() -> PublicKey:
    return parse_public_key((MADE / "public.pub").read_text(), file="public.pub")


def signature(name: str) -> Signature:
    return decode_signature((MADE / name).read_bytes(), file=name)


def test_the_tools_key_has_the_name_that_the_tool_gives_it() -> None:
    assert public_key().name == "BA9E54B4AAC38287"
    assert public_key().text() == (MADE / "public.pub").read_text()
    assert parse_public_key(public_key().line, file="line") == public_key()


@pytest.mark.parametrize(("name", "prehashed"), [("hashed.minisig", True), ("legacy.minisig", False)])
def test_the_tools_signatures_are_verified(name: str, *, prehashed: bool) -> None:
    read = signature(name)
    assert read.prehashed is prehashed
    assert covers(public_key(), read, MESSAGE)
    assert encode_signature(read) == (MADE / name).read_bytes()
    assert not covers(public_key(), read, MESSAGE + b"\n")
    assert not covers(public_key(), replace(read, prehashed=not prehashed), MESSAGE)


@pytest.mark.parametrize("name", ["hashed.minisig", "legacy.minisig"])
def test_the_trusted_comment_is_covered_too(name: str) -> None:
    read = signature(name)
    assert not covers(public_key(), replace(read, trusted_comment=read.trusted_comment + "!"), MESSAGE)
    # The comment above it is not, and is called untrusted for that.
    assert covers(public_key(), replace(read, untrusted_comment="anything"), MESSAGE)


def test_what_a_signature_says_of_a_bundle_is_read() -> None:
    assert read_statement(signature("hashed.minisig")) == Statement("tiny-stripes", "1.0.0", 7)
    assert read_statement(signature("legacy.minisig")) is None
    for comment in ("edgeexit bundle", "edgeexit bundle\tname:x\tversion:1.0.0\tserial:-1"):
        with pytest.raises(SignatureError, match="malformed"):
            read_statement(replace(signature("legacy.minisig"), trusted_comment=comment))


def test_windows_line_ends_are_read() -> None:
    data = (MADE / "hashed.minisig").read_bytes().replace(b"\n", b"\r\n")
    assert decode_signature(data, file="x") == signature("hashed.minisig")


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_flipped_bit_below_the_first_line_is_refused_or_does_not_verify(data: st.DataObject) -> None:
    sound = (MADE / data.draw(st.sampled_from(["hashed.minisig", "legacy.minisig"]))).read_bytes()
    index = data.draw(st.integers(sound.index(b"\n"), len(sound) - 2))
    damaged = bytearray(sound)
    damaged[index] ^= data.draw(st.sampled_from([1 << bit for bit in range(8)]))
    try:
        read = decode_signature(bytes(damaged), file="x")
    except SignatureError:
        return
    # The two unused bits of a last base64 digit mean nothing.
    if encode_signature(read) != sound:
        assert not covers(public_key(), read, MESSAGE)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=600), st.text(max_size=600).map(str.encode)))
def test_bytes_that_are_no_signature_are_a_signature_error(data: bytes) -> None:
    with pytest.raises(SignatureError):
        decode_signature(data, file="x")


@pytest.mark.parametrize("length", range(0, 300, 7))
def test_truncated_signatures_are_refused(length: int) -> None:
    with pytest.raises(SignatureError):
        decode_signature((MADE / "hashed.minisig").read_bytes()[:length], file="x")


def test_a_huge_signature_is_not_taken_apart() -> None:
    with pytest.raises(SignatureError, match="larger"):
        decode_signature(b"untrusted comment: " + b"x" * SIGNATURE_CAP_BYTES, file="x")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=120))
def test_text_that_is_no_key_is_a_key_file_error(text: str) -> None:
    with pytest.raises(KeyFileError):
        parse_public_key(text, file="x")


@pytest.mark.parametrize(
    "line",
    [
        base64.b64encode(b"Ed" + bytes(39)).decode(),
        base64.b64encode(b"Ed" + bytes(41)).decode(),
        base64.b64encode(b"RS" + bytes(40)).decode(),
        "RW" + "?" * 54,
    ],
)
def test_keys_of_another_kind_or_length_are_refused(line: str) -> None:
    with pytest.raises(KeyFileError):
        parse_public_key(line, file="x")


def test_a_point_on_no_curve_verifies_nothing() -> None:
    key = replace(public_key(), point=b"\xff" * 32)
    assert not covers(key, signature("hashed.minisig"), MESSAGE)
