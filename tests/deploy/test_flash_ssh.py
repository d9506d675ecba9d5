"""Flashing over SSH, against a real OpenSSH server on loopback."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeexit.bundle.store import open_bundle
from edgeexit.deploy import layout
from edgeexit.deploy.flash import BoardFile, flash
from edgeexit.deploy.ssh import Address, SshBoard
from edgeexit.errors import DeployError

pytestmark = pytest.mark.ssh

TINY = Path(__file__).parent.parent / "data" / "tiny_bundle"


@dataclass(frozen=True, slots=True)
class Server:
    """A running sshd."""

    port: int
    key: Path
    known_hosts: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> Address:
        return Address(host="127.0.0.1", user=getpass.getuser(), port=self.port)

    def board(self) -> SshBoard:
        return SshBoard(self.address, client_keys=self.key, known_hosts=self.known_hosts)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    assert Path(sshd).exists(), "openssh-server is not installed: apt-get install openssh-server"
    home = tmp_path_factory.mktemp("sshd")
    host_key, user_key, port = make_key(home / "host"), make_key(home / "user"), free_port()
    authorised = home / "authorized_keys"
    shutil.copy(f"{user_key}.pub", authorised)
    Path("/run/sshd").mkdir(exist_ok=True)
    config = home / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nPidFile none\n"
        f"AuthorizedKeysFile {authorised}\nStrictModes no\nPasswordAuthentication no\n"
        "UsePAM no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    known_hosts = home / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {Path(f'{host_key}.pub').read_text()}")
    process = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield Server(port, user_key, known_hosts, process)
    process.terminate()
    process.wait(timeout=10)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lays the board's folders under the test's own one: the server sees the same file system."""
    root = str(tmp_path / "board")
    monkeypatch.setattr(layout, "STATE", f"{root}/state")
    monkeypatch.setattr(layout, "BUNDLES", f"{root}/state/bundles")
    monkeypatch.setattr(layout, "CURRENT", f"{root}/state/current")
    monkeypatch.setattr(layout, "PREVIOUS", f"{root}/state/previous")
    return Path(root)


def test_flash_then_flash_again(server: Server, state: Path) -> None:
    bundle = open_bundle(TINY)
    files = [BoardFile(f"{state}/etc/config.toml", b"device_id = 'porch'\n", mode=0o640)]
    with server.board() as board:
        report = flash(bundle, board, files=files)
        assert open_bundle(Path(layout.CURRENT)).digest == bundle.digest
        assert report.sent_bytes > 0
        assert (state / "etc/config.toml").stat().st_mode & 0o777 == 0o640
        assert flash(bundle, board, files=files).already_current


def test_a_connection_that_breaks_leaves_the_old_bundle(
    server: Server, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(TINY)
    with server.board() as board:
        flash(bundle, board)
    Path(layout.CURRENT).unlink()
    Path(layout.CURRENT).symlink_to("bundles/older")
    shutil.copytree(TINY, Path(layout.BUNDLES) / "older")
    shutil.rmtree(layout.bundle_directory(bundle.short_digest))
    with server.board() as board:
        sends = 0
        whole = SshBoard.send

        def breaks(self: SshBoard, source: Path, path: str, sent: object) -> None:
            nonlocal sends
            sends += 1
            if sends == 3:
                assert self._connection is not None
                self._connection.abort()
            whole(self, source, path, lambda _count: None)

        monkeypatch.setattr(SshBoard, "send", breaks)
        # The blobs lie in the older bundle; without them everything has to be sent.
        for blob in (Path(layout.BUNDLES) / "older" / "blobs").rglob("*"):
            if blob.is_file():
                blob.write_bytes(b"other")
        with pytest.raises(DeployError):
            flash(bundle, board)
    assert Path(layout.CURRENT).readlink() == Path("bundles/older")
    monkeypatch.undo()


def test_a_key_that_is_not_authorised_is_refused_with_a_fix(server: Server, tmp_path: Path) -> None:
    stranger = SshBoard(
        server.address, client_keys=make_key(tmp_path / "stranger"), known_hosts=server.known_hosts
    )
    with pytest.raises(DeployError) as caught, stranger:
        pass
    assert caught.value.fix is not None
    assert "ssh-copy-id" in caught.value.fix


def test_an_unknown_host_key_is_refused(server: Server, tmp_path: Path) -> None:
    empty = tmp_path / "known_hosts"
    empty.write_text("")
    with (
        pytest.raises(DeployError, match="host key"),
        SshBoard(server.address, client_keys=server.key, known_hosts=empty),
    ):
        pass


def test_a_board_that_is_off_is_a_clear_error(tmp_path: Path) -> None:
    address = Address(host="127.0.0.1", user="pi", port=free_port())
    with pytest.raises(DeployError, match=r"cannot reach pi@127\.0\.0\.1"), SshBoard(address):
        pass


@pytest.mark.parametrize("text", ["", "@host", "pi@", "host:port", "pi@host:"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(DeployError, match="no address"):
        Address.parse(text)


def test_addresses_are_read() -> None:
    assert Address.parse("pi@board.local:2222") == Address("board.local", "pi", 2222)
    assert Address.parse("board") == Address("board")
