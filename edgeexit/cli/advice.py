"""The way out of an error that does not name one itself: by what the system said, or by what it is about."""

from __future__ import annotations

import errno
from pathlib import Path

from edgeexit.errors import BundleError, ConfigError, DataError, EdgeExitError, RunnerError, TraceError

_BY_SYSTEM = {
    errno.ENOENT: "look for a typing error in the path; everything above it must exist",
    errno.ENOTDIR: "look for a typing error in the path; everything above it must be a folder",
    errno.EISDIR: "give a file: this is a folder",
    errno.EEXIST: "give another path, or move away what is there",
    errno.EACCES: "give this user the right to it, or take another path",
    errno.EPERM: "give this user the right to it, or take another path",
    errno.EROFS: "take a path on another disk: this one cannot be written",
    errno.ENOSPC: "make room on the disk, or take a path on another one",
    errno.EADDRINUSE: "stop what listens there, or take another port",
}


def way_out(error: EdgeExitError) -> str | None:
    """How to fix it, in the error's own words where it has some; None where nothing is known."""
    if error.fix is not None:
        return error.fix
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in _BY_SYSTEM:
        return _BY_SYSTEM[cause.errno]
    if isinstance(error, TraceError):
        if not Path(error.file).is_file():
            return "name a folder of traces, or one; docs/replaying.md says what they look like"
        place = error.file if error.line is None else f"line {error.line} of {error.file}"
        return f"correct {place}, or leave that file out; docs/replaying.md says what traces look like"
    if isinstance(error, BundleError):
        return "flash or copy the bundle again"
    if isinstance(error, RunnerError):
        return "edgeexit bench --on BUNDLE shows what can run on this machine"
    if isinstance(error, DataError):
        return f"correct {error.file}, or give another one"
    if isinstance(error, ConfigError) and error.key is not None:
        return f"change {error.key}" if error.file is None else f"change {error.key} in {error.file}"
    if isinstance(error, ConfigError) and error.file is not None:
        return f"correct {error.file}"
    return None
