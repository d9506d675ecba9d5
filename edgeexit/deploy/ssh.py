"""A board reached over SSH, by the user's own SSH configuration, keys and known hosts."""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
import shlex
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar, cast

from edgeexit.deploy.board import Sent, within_cap
from edgeexit.errors import DeployError, MissingExtra

try:
    import asyncssh
except ImportError as error:
    raise MissingExtra("asyncssh", extra="deploy", needed_for="flashing over SSH") from error

T = TypeVar("T")

# A board on slow Wi-Fi answers well within this; one that is off never does.
CONNECT_TIMEOUT_S = 15.0
# sha256sum of a 100 MB file on the slowest card; nothing else takes nearly as long.
COMMAND_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a board is: what stands before and after the @ and the colon, None where not given."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `host`, `user@host` or `user@host:port`. Raises: DeployError."""
        user, at, rest = text.rpartition("@")
        host, colon, port = rest.partition(":")
        if not host or (at and not user) or (colon and not port.isdecimal()):
            raise DeployError(
                f"{text!r} is no address", host=text, why="it is not user@host or user@host:port"
            )
        return cls(host=host, user=user or None, port=int(port) if port else None)


class SshBoard:
    """A board behind SSH. Use it as a context manager: entering connects, leaving disconnects.

    `client_keys` and `known_hosts` replace the user's own, for tests and automation.
    Raises: DeployError from every method when the board cannot be reached or refuses.
    """

    def __init__(
        self, address: Address, *, client_keys: Path | None = None, known_hosts: Path | None = None
    ) -> None:
        self._address = address
        self._client_keys = client_keys
        self._known_hosts = known_hosts
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None

    @property
    def name(self) -> str:
        """user@host."""
        user = self._address.user
        return self._address.host if user is None else f"{user}@{self._address.host}"

    def __enter__(self) -> SshBoard:
        self._loop = asyncio.new_event_loop()
        try:
            self._wait(self._connect(), f"cannot reach {self.name}")
        except DeployError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop, self._loop = self._loop, None
        if loop is None:
            return
        connection = self._connection
        if connection is not None:
            connection.close()
            loop.run_until_complete(connection.wait_closed())
        loop.close()

    async def _connect(self) -> None:
        options = asyncssh.SSHClientConnectionOptions(
            username=self._address.user if self._address.user is not None else (),
            client_keys=() if self._client_keys is None else [str(self._client_keys)],
            known_hosts=() if self._known_hosts is None else str(self._known_hosts),
            connect_timeout=CONNECT_TIMEOUT_S,
        )
        port = self._address.port
        self._connection = await asyncssh.connect(
            self._address.host, port=() if port is None else port, options=options
        )
        self._sftp = await self._connection.start_sftp_client()

    def _wait(self, work: Coroutine[None, None, T], what: str) -> T:
        if self._loop is None:
            work.close()
            raise DeployError(what, host=self.name, why="the connection is closed")
        try:
            return self._loop.run_until_complete(work)
        except asyncssh.PermissionDenied as error:
            fix = "ssh-copy-id " + self.name
            raise DeployError(what, host=self.name, why="login was refused", fix=fix) from error
        except asyncssh.HostKeyNotVerifiable as error:
            fix = f"ssh {self.name} once, and compare the key it shows"
            raise DeployError(what, host=self.name, why="its host key is not known", fix=fix) from error
        except asyncssh.SFTPPermissionDenied as error:
            fix = "run provision/board-setup.sh on the board once, as root, then log in anew"
            raise DeployError(what, host=self.name, why="permission denied", fix=fix) from error
        except (asyncssh.Error, OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            fix = "check that the board is on and reachable"
            raise DeployError(what, host=self.name, why=why, fix=fix) from error

    @property
    def _files(self) -> asyncssh.SFTPClient:
        if self._sftp is None:
            raise DeployError("no connection", host=self.name)
        return self._sftp

    async def _run(self, *words: str) -> tuple[int, str]:
        if self._connection is None:
            raise DeployError("no connection", host=self.name)
        done = await self._connection.run(
            shlex.join(words), check=False, timeout=COMMAND_TIMEOUT_S, errors="replace"
        )
        output = done.stdout if isinstance(done.stdout, str) else ""
        problem = done.stderr if isinstance(done.stderr, str) else ""
        return done.returncode if done.returncode is not None else -1, output.strip() or problem.strip()

    def link(self, path: str) -> str | None:
        """See Board."""

        async def read() -> str | None:
            try:
                target = await self._files.readlink(path)
            except asyncssh.SFTPError:
                return None
            return target if isinstance(target, str) else target.decode()

        return self._wait(read(), f"cannot read {path}")

    def sha256(self, path: str) -> str | None:
        """See Board."""
        status, output = self._wait(self._run("sha256sum", "--", path), f"cannot read {path}")
        return output.split()[0].lstrip("\\") if status == 0 else None

    def read(self, path: str, cap_bytes: int) -> bytes | None:
        """See Board."""

        async def content() -> bytes | None:
            try:
                async with self._files.open(path, "rb") as file:
                    # Text only where an encoding was given.
                    return cast("bytes", await file.read(cap_bytes + 1))
            except asyncssh.SFTPNoSuchFile:
                return None

        found = self._wait(content(), f"cannot read {path}")
        return None if found is None else within_cap(found, cap_bytes, path, host=self.name)

    def is_directory(self, path: str) -> bool:
        """See Board."""
        return self._wait(self._files.isdir(path), f"cannot read {path}")

    def make_directory(self, path: str) -> None:
        """See Board."""
        self._wait(self._files.makedirs(path, exist_ok=True), f"cannot make {path}")

    def send(self, source: Path, path: str, sent: Sent) -> None:
        """See Board."""

        async def put() -> None:
            done_bytes = 0

            def moved(_source: bytes, _target: bytes, so_far: int, _total: int) -> None:
                nonlocal done_bytes
                sent(so_far - done_bytes)
                done_bytes = so_far

            # In blocks as large as the server says it takes: OpenSSH hangs up on one of 256 KiB.
            await self._files.put(str(source), f"{path}.part", progress_handler=moved)
            await self._files.posix_rename(f"{path}.part", path)

        self._wait(put(), f"cannot write {path}")

    def write(self, content: bytes, path: str, mode: int) -> None:
        """See Board; where the login user may not write, through `sudo -n`."""

        async def put(target: str) -> None:
            async with self._files.open(f"{target}.part", "wb") as file:
                await file.write(content)
                with contextlib.suppress(asyncssh.SFTPOpUnsupported):
                    await file.fsync()
            await self._files.chmod(f"{target}.part", mode)
            await self._files.posix_rename(f"{target}.part", target)

        async def put_or_install() -> None:
            try:
                await self._files.makedirs(posixpath.dirname(path), exist_ok=True)
                await put(path)
            except asyncssh.SFTPPermissionDenied:
                status, staged = await self._run("mktemp", "--tmpdir", "edgeexit.XXXXXXXX")
                if status != 0:
                    raise
                await put(staged)
                words = ("sudo", "-n", "install", "-D", "-m", f"{mode:o}", staged, path)
                status, _ = await self._run(*words)
                await self._run("rm", "-f", staged)
                if status != 0:
                    raise

        self._wait(put_or_install(), f"cannot write {path}")

    def copy(self, source: str, path: str) -> None:
        """See Board."""
        self._checked("cp", "--", source, f"{path}.part")
        self._wait(self._files.posix_rename(f"{path}.part", path), f"cannot copy to {path}")

    def rename(self, source: str, path: str) -> None:
        """See Board."""
        # What was sent must be on the card before its name says that it is whole.
        self._flush("find", source, "-exec", "sync", "--", "{}", "+")
        self._wait(self._files.rename(source, path), f"cannot rename {source}")
        self._flush("sync", "--", posixpath.dirname(path))

    def switch_link(self, target: str, path: str) -> None:
        """See Board."""

        async def switch() -> None:
            with contextlib.suppress(asyncssh.SFTPNoSuchFile):
                await self._files.remove(f"{path}.new")
            await self._files.symlink(target, f"{path}.new")
            await self._files.posix_rename(f"{path}.new", path)

        self._wait(switch(), f"cannot switch {path}")
        self._flush("sync", "--", posixpath.dirname(path))

    def remove_tree(self, path: str) -> None:
        """See Board."""
        self._checked("rm", "-rf", "--", path)

    def names(self, path: str) -> tuple[str, ...]:
        """See Board."""

        async def listed() -> tuple[str, ...]:
            try:
                found = await self._files.listdir(path)
            except asyncssh.SFTPNoSuchFile:
                return ()
            names = (name if isinstance(name, str) else name.decode() for name in found)
            return tuple(sorted(name for name in names if name not in (".", "..")))

        return self._wait(listed(), f"cannot read {path}")

    def restart(self, unit: str) -> str:
        """See Board."""
        for words in (
            ("systemctl", "daemon-reload"),
            ("systemctl", "enable", "--now", unit),
            ("systemctl", "restart", unit),
        ):
            status, output = self._wait(self._run("sudo", "-n", *words), f"cannot start {unit}")
            if status != 0:
                return f"not started: {output.splitlines()[0] if output else 'systemctl failed'}"
        return "started"

    def _flush(self, *words: str) -> None:
        """Put these files and folders onto the card; everything, where the board cannot do it one by one.

        Everything may be what other programs wrote for minutes.
        """
        status, _ = self._wait(self._run(*words), f"cannot run {words[0]}")
        if status != 0:
            self._checked("sync")

    def _checked(self, *words: str) -> None:
        status, output = self._wait(self._run(*words), f"cannot run {words[0]}")
        if status != 0:
            raise DeployError(f"{words[0]} failed on the board", host=self.name, why=output or None)
