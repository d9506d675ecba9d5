"""Flashing over SSH, against a real OpenSSH server on loopback."""

from __future__ import annotations

import contextlib
import getpass
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from edgeexit.bundle import Bundle, model_blob, open_bundle, write_bundle
from edgeexit.deploy import layout
from edgeexit.deploy.board import BoardFile
from edgeexit.deploy.flash import flash
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


PATIENCE_S = 60.0


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, hold_port: Callable[[], int]) -> Iterator[Server]:
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    assert Path(sshd).exists(), "openssh-server is not installed: apt-get install openssh-server"
    home = tmp_path_factory.mktemp("sshd")
    host_key, user_key, port = make_key(home / "host"), make_key(home / "user"), hold_port()
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
    end_s = time.monotonic() + PATIENCE_S
    while not listens(port):
        assert process.poll() is None, "sshd has ended"
        assert time.monotonic() < end_s, "sshd does not listen"
        time.sleep(0.05)
    yield Server(port, user_key, known_hosts, process)
    process.terminate()
    process.wait(timeout=PATIENCE_S)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
    except OSError:
        return False
    return True


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lays the board's folders under the test's own one: the server sees the same file system."""
    root = str(tmp_path / "board")
    monkeypatch.setattr(layout, "STATE", f"{root}/state")
    monkeypatch.setattr(layout, "BUNDLES", f"{root}/state/bundles")
    monkeypatch.setattr(layout, "CURRENT", f"{root}/state/current")
    monkeypatch.setattr(layout, "PREVIOUS", f"{root}/state/previous")
    monkeypatch.setattr(layout, "CONFIG", f"{root}/etc/config.toml")
    monkeypatch.setattr(layout, "CONFIG_EXTRAS", f"{root}/etc/conf.d")
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


class CountingLink:
    """A TCP link to the server that counts the bytes sent towards it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent_bytes = 0
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            self._ends += [near, far]
            for end in (near, far):  # else each question waits for the acknowledgement of the one before
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, target, counts in ((near, far, True), (far, near, False)):
                thread = threading.Thread(target=self._pump, args=(source, target, counts), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if counts:
                    self.sent_bytes += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=PATIENCE_S)
        for end in self._ends:
            end.close()


@pytest.fixture
def link(server: Server) -> Iterator[CountingLink]:
    link = CountingLink(server.port)
    yield link
    link.close()


def grown(folder: Path, serial: int) -> Bundle:
    """The tiny bundle with a megabyte behind its last f32 model, which no runtime looks at."""
    tiny = open_bundle(TINY)
    files = {blob.file: tiny.blob_path(blob).read_bytes() for blob in tiny.manifest.blobs()}
    last = tiny.manifest.stages[-1]
    large = files[last.variants[0].blob.file] + random.Random(serial // 10).randbytes(2**20)
    blob = model_blob(large)
    variants = (msgspec.structs.replace(last.variants[0], blob=blob), last.variants[1])
    stages = (*tiny.manifest.stages[:-1], msgspec.structs.replace(last, variants=variants))
    manifest = msgspec.structs.replace(tiny.manifest, serial=serial, stages=stages)
    return write_bundle(folder, manifest, {**files, blob.file: large})


def test_an_unchanged_stage_does_not_cross_the_wire_again(
    server: Server, link: CountingLink, state: Path, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(server.known_hosts.read_text().replace(f":{server.port}", f":{link.port}"))
    address = Address(host="127.0.0.1", user=getpass.getuser(), port=link.port)

    def flash_over_link(bundle: Bundle) -> int:
        before_bytes = link.sent_bytes
        with SshBoard(address, client_keys=server.key, known_hosts=known_hosts) as board:
            report = flash(bundle, board)
        assert open_bundle(Path(layout.CURRENT)).digest == bundle.digest
        assert report.sent_bytes + report.kept_bytes == sum(
            (bundle.path / name).stat().st_size for name in bundle.files()
        )
        return link.sent_bytes - before_bytes

    first_bytes = flash_over_link(grown(tmp_path / "first", 1))
    same_stage_bytes = flash_over_link(grown(tmp_path / "second", 2))
    other_stage_bytes = flash_over_link(grown(tmp_path / "third", 10))
    assert first_bytes > 2**20
    # Another manifest, and the questions that are asked: some tens of kilobytes.
    assert same_stage_bytes < 2**17
    assert other_stage_bytes > 2**20


def test_small_files_of_a_board_are_read(server: Server, state: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    with server.board() as board:
        assert board.read(str(tmp_path / "file"), 5) == b"12345"
        assert board.read(str(tmp_path / "nowhere"), 5) is None
        with pytest.raises(DeployError, match="larger than 4"):
            board.read(str(tmp_path / "file"), 4)


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


def test_a_board_that_is_off_is_a_clear_error(hold_port: Callable[[], int]) -> None:
    address = Address(host="127.0.0.1", user="pi", port=hold_port())
    with pytest.raises(DeployError, match=r"cannot reach pi@127\.0\.0\.1"), SshBoard(address):
        pass


@pytest.mark.parametrize("text", ["", "@host", "pi@", "host:port", "pi@host:"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(DeployError, match="no address"):
        Address.parse(text)


def test_addresses_are_read() -> None:
    assert Address.parse("pi@board.local:2222") == Address("board.local", "pi", 2222)
    assert Address.parse("board") == Address("board")
