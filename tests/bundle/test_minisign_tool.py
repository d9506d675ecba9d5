"""The minisign tool itself: it verifies what is signed here, signs with keys made here, and the other way."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgeexit.bundle import Bundle, Trust, open_bundle, sign_bundle
from edgeexit.bundle.minisign import parse_public_key
from edgeexit.bundle.secret_key import encode_secret_key, generate_key, parse_secret_key, write_key_pair
from edgeexit.bundle.sign import SIGNATURE_FILE
from edgeexit.errors import SignatureError

pytestmark = pytest.mark.process

PASSPHRASE = "correct horse"
MANIFEST = "manifest.json"


def minisign(*words: object, folder: Path, passphrase: str | None = None) -> int:
    """Run the tool; its exit code. It asks for a passphrase on standard input where there is no terminal."""
    done = subprocess.run(
        ["minisign", *map(str, words)],
        cwd=folder,
        input=None if passphrase is None else f"{passphrase}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode


@pytest.fixture
def copied(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


def test_the_tool_verifies_a_bundle_signed_here_and_signs_with_its_locked_key(
    copied: Path, tmp_path: Path
) -> None:
    key = generate_key()
    secret, public = tmp_path / "edgeexit.key", tmp_path / "edgeexit.pub"
    write_key_pair(secret, encode_secret_key(key, PASSPHRASE), public, key.public.text())
    sign_bundle(open_bundle(copied), key, unix_s=0)
    verify = ("-V", "-m", MANIFEST, "-p", public)
    assert minisign(*verify, folder=copied) == 0
    # Unlocked by the tool with the passphrase that it was locked with here.
    (copied / SIGNATURE_FILE).unlink()
    sign = ("-S", "-s", secret, "-m", MANIFEST)
    assert minisign(*sign, folder=copied, passphrase="wrong") != 0
    assert minisign(*sign, folder=copied, passphrase=PASSPHRASE) == 0
    assert open_bundle(copied, trust=Trust((key.public,))).signature is not None
    with (copied / MANIFEST).open("ab") as stream:
        stream.write(b" ")
    assert minisign(*verify, folder=copied) != 0


@pytest.mark.parametrize("legacy", [False, True])
def test_what_the_tool_signs_is_verified_here_and_its_key_signs_here(
    copied: Path, tmp_path: Path, *, legacy: bool
) -> None:
    secret, public = tmp_path / "tool.key", tmp_path / "tool.pub"
    assert minisign("-G", "-W", "-s", secret, "-p", public, folder=tmp_path) == 0
    trusted = parse_public_key(public.read_text(), file="tool.pub")
    words = ("-S", *(("-l",) if legacy else ()), "-s", secret, "-m", MANIFEST)
    assert minisign(*words, folder=copied) == 0
    signed = open_bundle(copied, trust=Trust((trusted,)))
    assert signed.signature is not None
    assert signed.signature.prehashed is not legacy
    with pytest.raises(SignatureError, match="not trusted here"):
        open_bundle(copied, trust=Trust((generate_key().public,)))
    sign_bundle(signed, parse_secret_key(secret.read_text(), None, file="tool.key"), unix_s=0)
    assert minisign("-V", "-m", MANIFEST, "-p", public, folder=copied) == 0
