"""Whose bundles are opened: those signed by a trusted key, for this very manifest, and not too old."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edgeexit.bundle import Bundle, Trust, open_bundle, sign_bundle, write_bundle
from edgeexit.bundle.encoding import encode_manifest
from edgeexit.bundle.minisign import PublicKey
from edgeexit.bundle.secret_key import SecretKey, generate_key
from edgeexit.bundle.sign import SIGNATURE_FILE, sign_manifest, write_signature
from edgeexit.bundle.trust import MOST_KEYS, TrustSettings, configured_trust
from edgeexit.errors import BundleError, ConfigError, NotSigned, OlderSerial, SignatureError, UnsafePath

UNIX_S = 1_795_311_576


@pytest.fixture(scope="module")
def key() -> SecretKey:
    return generate_key()


@pytest.fixture
def signed(tiny_bundle: Bundle, key: SecretKey, tmp_path: Path) -> Bundle:
    shutil.copytree(tiny_bundle.path, tmp_path / "signed")
    return sign_bundle(open_bundle(tmp_path / "signed"), key, unix_s=UNIX_S)


def test_a_signed_bundle_is_opened_by_who_trusts_the_key(
    tiny_bundle: Bundle, signed: Bundle, key: SecretKey
) -> None:
    other = generate_key().public
    for keys in ((key.public,), (other, key.public)):
        opened = open_bundle(signed.path, trust=Trust(keys))
        assert opened.digest == tiny_bundle.digest, "a signature changes nothing that it signs"
        assert opened.signature is not None
        assert opened.signature.key_name == key.public.name
    assert SIGNATURE_FILE in signed.files()
    assert (signed.path / SIGNATURE_FILE).stat().st_mode & 0o777 == 0o644


def test_the_comment_names_bundle_version_and_serial(signed: Bundle) -> None:
    assert signed.signature is not None
    assert signed.signature.trusted_comment == (
        f"edgeexit bundle\tname:tiny-stripes\tversion:1.0.0\tserial:1\ttimestamp:{UNIX_S}"
    )


def test_who_trusts_nobody_asks_for_no_signature(tiny_bundle: Bundle, signed: Bundle) -> None:
    assert open_bundle(tiny_bundle.path).signature is None
    assert open_bundle(signed.path, trust=Trust()).signature == signed.signature


def test_an_unsigned_bundle_is_refused(tiny_bundle: Bundle, key: SecretKey) -> None:
    with pytest.raises(NotSigned) as caught:
        open_bundle(tiny_bundle.path, trust=Trust((key.public,)))
    assert caught.value.fix == "edgeexit bundle sign BUNDLE --key KEY"


def test_a_strangers_signature_is_refused_by_name(signed: Bundle, key: SecretKey) -> None:
    with pytest.raises(SignatureError, match="not trusted here") as caught:
        open_bundle(signed.path, trust=Trust((generate_key().public,)))
    assert caught.value.key_id == key.public.name


def test_a_key_under_a_trusted_keys_id_is_not_that_key(signed: Bundle, key: SecretKey) -> None:
    impostor = PublicKey(key.key_id, generate_key().point)
    with pytest.raises(SignatureError, match="is wrong"):
        open_bundle(signed.path, trust=Trust((impostor,)))
    open_bundle(signed.path, trust=Trust((impostor, key.public)))


def test_a_manifest_changed_after_signing_is_refused_before_it_is_read(
    signed: Bundle, key: SecretKey
) -> None:
    (signed.path / "manifest.json").write_bytes(b"no manifest at all")
    with pytest.raises(SignatureError, match="did not sign these bytes"):
        open_bundle(signed.path, trust=Trust((key.public,)))


def test_another_bundles_signature_is_refused(signed: Bundle, key: SecretKey, tmp_path: Path) -> None:
    files = {blob.file: signed.blob_path(blob).read_bytes() for blob in signed.manifest.blobs()}
    later = msgspec.structs.replace(signed.manifest, version="1.0.1", serial=2)
    other = write_bundle(tmp_path / "later", later, files)
    shutil.copy(signed.path / SIGNATURE_FILE, other.path)
    with pytest.raises(SignatureError):
        open_bundle(other.path, trust=Trust((key.public,)))


def test_a_comment_about_another_bundle_is_refused(signed: Bundle, key: SecretKey) -> None:
    data = encode_manifest(signed.manifest)
    newer = msgspec.structs.replace(signed.manifest, serial=99)
    write_signature(signed.path, sign_manifest(data, newer, key, unix_s=UNIX_S))
    with pytest.raises(SignatureError, match="another bundle") as caught:
        open_bundle(signed.path, trust=Trust((key.public,)))
    assert caught.value.why is not None
    assert "serial 99" in caught.value.why


def test_an_edited_comment_is_refused(signed: Bundle, key: SecretKey) -> None:
    assert signed.signature is not None
    comment = signed.signature.trusted_comment.replace("serial:1", "serial:2")
    write_signature(signed.path, replace(signed.signature, trusted_comment=comment))
    with pytest.raises(SignatureError, match="is wrong"):
        open_bundle(signed.path, trust=Trust((key.public,)))


@pytest.mark.parametrize("content", [b"", b"not a signature", b"\xff" * 100, b"x" * 100_000])
def test_a_signature_that_is_none_is_refused_also_by_who_trusts_nobody(
    signed: Bundle, content: bytes
) -> None:
    (signed.path / SIGNATURE_FILE).write_bytes(content)
    with pytest.raises(BundleError):
        open_bundle(signed.path)


def test_a_signature_behind_a_link_that_leaves_is_unsafe(signed: Bundle) -> None:
    place = signed.path / SIGNATURE_FILE
    place.rename(signed.path.parent / "outside")
    place.symlink_to(signed.path.parent / "outside")
    with pytest.raises(UnsafePath):
        open_bundle(signed.path)


def test_an_older_serial_is_refused_where_asked(tiny_bundle: Bundle) -> None:
    for least, welcome in ((0, True), (1, True), (2, False)):
        trust = Trust(least_serials={"tiny-stripes": least})
        if welcome:
            open_bundle(tiny_bundle.path, trust=trust)
            continue
        with pytest.raises(OlderSerial) as caught:
            open_bundle(tiny_bundle.path, trust=trust)
        assert (caught.value.serial, caught.value.least_serial) == (1, 2)
    open_bundle(tiny_bundle.path, trust=Trust(least_serials={"another": 9}))


def test_signing_again_replaces_the_signature(signed: Bundle, key: SecretKey) -> None:
    other = generate_key()
    again = sign_bundle(signed, other, unix_s=UNIX_S + 1)
    assert again.digest == signed.digest
    with pytest.raises(SignatureError):
        open_bundle(signed.path, trust=Trust((key.public,)))
    assert [place.name for place in signed.path.iterdir() if place.name.startswith(".")] == []


def test_a_configuration_states_trust(key: SecretKey) -> None:
    stated = TrustSettings(keys=(key.public.line,), least_serials={"a": 3}).trust()
    assert stated.keys == (key.public,)
    assert stated.least_serials == {"a": 3}
    assert TrustSettings().trust() == Trust()
    for keys, serials in (
        (("RW",), {}),
        ((key.public.line,) * (MOST_KEYS + 1), {}),
        ((), {"a": -1}),
    ):
        with pytest.raises(ConfigError) as caught:
            configured_trust(keys, serials, key="trust.keys")
        assert caught.value.key == "trust.keys"


def test_cryptography_is_loaded_only_where_a_signature_is_verified(signed: Bundle, key: SecretKey) -> None:
    code = (
        "import sys; from pathlib import Path; from edgeexit.bundle import Trust, open_bundle;"
        "from edgeexit.bundle.minisign import parse_public_key;"
        f"path, line = Path({str(signed.path)!r}), {key.public.line!r};"
        "open_bundle(path); print('cryptography' in sys.modules);"
        "open_bundle(path, trust=Trust((parse_public_key(line, file='x'),)));"
        "print('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
