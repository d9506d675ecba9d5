"""A daemon whose configuration trusts keys runs what they signed, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from edgeexit.bundle import Bundle, open_bundle, sign_bundle
from edgeexit.bundle.secret_key import SecretKey, generate_key
from edgeexit.device.config import load_config
from edgeexit.errors import ConfigError


def write_config(folder: Path, bundle: Path, trust: str) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    Image.new("L", (8, 8)).save(folder / "images" / "black.png")
    path = folder / "device.toml"
    path.write_text(
        f'bundle = "{bundle}"\n[source]\nkind = "directory"\npath = "{folder / "images"}"\n[trust]\n{trust}\n'
    )
    return path


def run_daemon(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgeexit.device", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.fixture
def key() -> SecretKey:
    return generate_key()


@pytest.fixture
def copied(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    return open_bundle(Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle")))


@pytest.mark.process
@pytest.mark.litert
def test_a_daemon_runs_what_a_trusted_key_signed_and_refuses_the_rest(
    tmp_path: Path, copied: Bundle, key: SecretKey
) -> None:
    config = write_config(tmp_path, copied.path, f'keys = ["{key.public.line}"]')
    unsigned = run_daemon(config)
    assert unsigned.returncode != 0
    assert "the bundle is not signed" in unsigned.stderr
    assert "Traceback" not in unsigned.stderr
    sign_bundle(copied, generate_key(), unix_s=0)
    assert "not trusted here" in run_daemon(config).stderr
    sign_bundle(copied, key, unix_s=0)
    signed = run_daemon(config)
    assert signed.returncode == 0, signed.stderr


@pytest.mark.process
def test_a_daemon_refuses_what_is_older_than_its_configuration_asks_for(
    tmp_path: Path, copied: Bundle
) -> None:
    done = run_daemon(write_config(tmp_path, copied.path, "least_serials = { tiny-stripes = 2 }"))
    assert done.returncode != 0
    assert "tiny-stripes with serial 1 is too old" in done.stderr


def test_a_key_that_is_none_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write_config(tmp_path, tmp_path, 'keys = ["RWQ"]'))
    assert caught.value.key == "trust.keys"
    assert caught.value.file == str(tmp_path / "device.toml")
