"""`edgeexit bundle …` and `edgeexit keys …`, as a user meets them; the minisign tool is a stranger here."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeexit.bundle import Bundle
from edgeexit.bundle.secret_key import encode_secret_key, generate_key
from edgeexit.cli.passphrase import ENVIRONMENT

if TYPE_CHECKING:
    from tests.cli.conftest import Say

SOURCE = '[source]\nkind = "directory"\npath = "images"\n'


@pytest.fixture
def copied(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "copied"))


@pytest.fixture
def secret(say: Say, tmp_path: Path) -> Path:
    """A key that is not locked, its public half beside it."""
    said = say("keys", "generate", "--unlocked", "--out", tmp_path / "own.key")
    assert said.code == 0, said
    return tmp_path / "own.key"


def public(secret: Path) -> str:
    return secret.with_suffix(".pub").read_text().splitlines()[1]


@pytest.mark.parametrize("group", ["bundle", "keys"])
def test_groups_say_what_they_hold(say: Say, group: str) -> None:
    said = say(group, "--help")
    assert said.code == 0
    for word in {"bundle": ("verify", "sign", "diff", "inspect", "card")}.get(group, ("generate", "trust")):
        assert word in said.out


def test_generated_keys_are_private_and_never_replaced(say: Say, secret: Path) -> None:
    assert secret.stat().st_mode & 0o777 == 0o600
    before = secret.read_bytes()
    say("keys", "generate", "--unlocked", "--out", secret).complains(2, "there already", "replaced")
    assert secret.read_bytes() == before
    shown = json.loads(say("keys", "show", secret.with_suffix(".pub"), "--json").out)
    assert shown == {"key": shown["key"], "line": public(secret), "secret": False}
    assert json.loads(say("keys", "show", secret, "--json").out) == {**shown, "secret": True}
    assert "RWQ" not in say("keys", "show", secret).err


def test_a_passphrase_comes_from_a_file_or_the_environment_and_from_no_argument(
    say: Say, tmp_path: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    # Locked cheaply: what a passphrase costs is not what is tested.
    text = encode_secret_key(generate_key(), "four words in a row", operations=32_768, memory_bytes=2**20)
    key, phrase = tmp_path / "locked.key", tmp_path / "phrase"
    key.write_text(text)
    phrase.write_text("four words in a row\n")
    say("bundle", "sign", copied, "--key", key).complains(2, "needs a passphrase", "--passphrase-file")
    assert say("bundle", "sign", copied, "--key", key, "--passphrase-file", phrase).code == 0
    monkeypatch.setenv(ENVIRONMENT, "four words in a row")
    assert say("bundle", "sign", copied, "--key", key).code == 0
    monkeypatch.setenv(ENVIRONMENT, "other words")
    say("bundle", "sign", copied, "--key", key).complains(2, "passphrase is wrong")
    monkeypatch.setenv(ENVIRONMENT, "")
    say("bundle", "sign", copied, "--key", key).complains(2, "is empty")
    assert "--passphrase " not in say("bundle", "sign", "--help").out


def test_sign_then_verify(say: Say, copied: Path, secret: Path, tiny_bundle: Bundle) -> None:
    unsigned = say("bundle", "verify", copied)
    assert unsigned.code == 0
    assert "signature  none" in unsigned.out
    pub = secret.with_suffix(".pub")
    say("bundle", "verify", copied, "--key", pub).complains(4, "the bundle is not signed", "bundle sign")
    assert say("bundle", "sign", copied, "--key", secret).code == 0
    for key in (pub, public(secret)):
        assert "which is trusted" in say("bundle", "verify", copied, "--key", key).out
    assert "not verified" in say("bundle", "verify", copied).out
    shown = json.loads(say("bundle", "verify", copied, "--key", pub, "--json").out)
    assert shown["digest"] == tiny_bundle.digest
    assert shown["verified_by"] == shown["signed_by"]
    assert "serial:1" in shown["trusted_comment"]


def test_what_verify_refuses_ends_with_four(say: Say, copied: Path, secret: Path, tmp_path: Path) -> None:
    say("keys", "generate", "--unlocked", "--out", tmp_path / "other.key")
    say("bundle", "sign", copied, "--key", tmp_path / "other.key")
    say("bundle", "verify", copied, "--key", secret.with_suffix(".pub")).complains(4, "not trusted here")
    say("bundle", "verify", copied, "--least-serial", 2).complains(4, "too old", "serial 2")
    assert say("bundle", "verify", copied, "--least-serial", 1).code == 0
    say("bundle", "verify", copied, "--key", "RWnonsense").complains(2, "no public key")
    model = next((copied / "blobs" / "sha256").iterdir())
    model.write_bytes(model.read_bytes()[:-1])
    say("bundle", "verify", copied).complains(4, "another size")
    say("bundle", "sign", copied, "--key", secret).complains(4, "another size")


def test_inspect_is_one_command_under_two_names(say: Say, copied: Path) -> None:
    assert say("bundle", "inspect", copied).out == say("inspect", copied).out


def test_diff_says_what_differs(say: Say, copied: Path, secret: Path, tiny_bundle: Bundle) -> None:
    assert "the same bundle" in say("bundle", "diff", copied, tiny_bundle.path).out
    say("bundle", "sign", copied, "--key", secret)
    said = say("bundle", "diff", tiny_bundle.path, copied)
    assert said.code == 0
    assert "signature" in said.out
    assert "7 files are shared" in said.out
    shown = json.loads(say("bundle", "diff", tiny_bundle.path, copied, "--json").out)
    assert [each["place"] for each in shown["differences"]] == ["signature"]
    assert shown["added_bytes"] == 0
    say("bundle", "diff", copied, "nowhere").complains(4, "no bundle at nowhere")


@pytest.mark.parametrize(
    "content",
    [
        SOURCE,
        "",
        f"# mine\n{SOURCE}\n[trust]\nleast_serials = {{ a = 1 }}\n[budget]\nlatency_ms = 5.0\n",
        f"[trust] # whom\nkeys = []\n{SOURCE}",
        f"[trust]\nkeys = [\n]\n\n{SOURCE}",
        '[gateway]\nstore = "bundles"\n',
        '[gateway]\nstore = "bundles"\ntrusted_keys = []\n',
    ],
)
def test_trust_adds_keys_and_leaves_the_rest_alone(say: Say, tmp_path: Path, content: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(content)
    config.chmod(0o640)
    assert json.loads(say("keys", "list", "--config", config, "--json").out) == []
    keys = [generate_key().public for _ in range(2)]
    (tmp_path / "a.pub").write_text(keys[0].text())
    said = say("keys", "trust", tmp_path / "a.pub", keys[1].line, "--config", config)
    assert said.code == 0, said
    listed = {each["line"] for each in json.loads(say("keys", "list", "--config", config, "--json").out)}
    assert listed == {key.line for key in keys}
    after = config.read_text()
    assert "trusted already" in say("keys", "trust", keys[0].line, "--config", config).out
    assert config.read_text() == after
    assert config.stat().st_mode & 0o777 == 0o640
    added = ("RW", "]", "keys = [", "trusted_keys = [", "[trust]", '"')
    kept = [line for line in content.splitlines() if line and not line.startswith(added)]
    assert [line for line in kept if line not in after.splitlines()] == []


@pytest.mark.parametrize(
    "content", ["trust = { keys = [] }\n", "trust.keys = []\n", "[trust]\n'keys' = []\n"]
)
def test_what_cannot_be_edited_safely_is_left_alone_with_the_line_to_add(
    say: Say, tmp_path: Path, content: str
) -> None:
    config, key = tmp_path / "config.toml", generate_key().public
    config.write_text(content)
    said = say("keys", "trust", key.line, "--config", config)
    said.complains(2, "cannot be edited", key.line)
    assert config.read_text() == content


def test_trust_says_what_it_cannot_read(say: Say, tmp_path: Path) -> None:
    key = generate_key().public.line
    say("keys", "trust", key, "--config", tmp_path / "nowhere").complains(2, "cannot be read")
    config = tmp_path / "config.toml"
    config.write_text("not toml")
    say("keys", "trust", key, "--config", config).complains(2, "not TOML")
    config.write_text('[trust]\nkeys = ["RW"]\n')
    say("keys", "trust", key, "--config", config).complains(2, "42 bytes")
    say("keys", "list", "--config", config).complains(2, "42 bytes")
    say("keys", "show", config).complains(2, "no public key")


def test_flash_refuses_what_the_configuration_does_not_trust(
    say: Say, copied: Path, secret: Path, tmp_path: Path
) -> None:
    config, board = tmp_path / "device.toml", tmp_path / "board"
    config.write_text(f'{SOURCE}[trust]\nkeys = ["{public(secret)}"]\n')
    words = ("flash", "--root", board, "--config", config, copied)
    say(*words).complains(4, "the bundle is not signed")
    assert not board.exists()
    say("bundle", "sign", copied, "--key", secret)
    assert say(*words).code == 0


class Fetches(HTMLParser):
    """Everything that a browser would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data") and value and not value.startswith("#"):
                self.found.append(f"{tag} {value}")
        if tag in ("script", "link", "iframe", "object"):
            self.found.append(tag)


def test_the_card_is_one_page_that_fetches_nothing(say: Say, copied: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages" / "card.html"
    said = say("bundle", "card", copied, "--out", out)
    assert said.code == 0, said
    text = out.read_text()
    reader = Fetches()
    reader.feed(text)
    assert reader.found == []
    assert "url(http" not in text
    assert "@import" not in text
    for words in ("tiny-stripes", "Exits", "Calibration", "Stages", "Boundaries", "Where it comes from"):
        assert words in text
    assert text.count("<svg") == 5
    assert "Latency" not in text, "nothing was measured"
    assert "69.2%" in text, "what exit 0 answers right"
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)), "plots must not use each other's parts"


@pytest.mark.litert
def test_the_card_shows_times_that_were_measured(say: Say, copied: Path, tmp_path: Path) -> None:
    out = tmp_path / "card.html"
    assert say("bundle", "card", copied, "--out", out, "--measure").code == 0
    assert "Latency" in out.read_text()
    other = tmp_path / "selection.json"
    other.write_text("{}")
    say("bundle", "card", copied, "--out", out, "--selection", other).complains(2, "no selection")
    say("bundle", "card", copied, "--out", out, "--report", other).complains(2, "not the report")


def test_a_hostile_name_is_only_text_on_the_card(say: Say, tiny_bundle: Bundle, tmp_path: Path) -> None:
    import msgspec

    from edgeexit.bundle import write_bundle

    manifest = tiny_bundle.manifest
    provenance = msgspec.structs.replace(manifest.provenance, network="<script>alert(1)</script>")
    files = {blob.file: tiny_bundle.blob_path(blob).read_bytes() for blob in manifest.blobs()}
    write_bundle(tmp_path / "b", msgspec.structs.replace(manifest, provenance=provenance), files)
    assert say("bundle", "card", tmp_path / "b", "--out", tmp_path / "card.html").code == 0
    assert "<script" not in (tmp_path / "card.html").read_text()
