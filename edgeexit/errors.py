"""Every error that edgeexit raises, on one tree.

EdgeExitError              what went wrong, why, and how to fix it
├─ ConfigError             file, key: a configuration or profile that cannot be read
├─ MissingExtra            package, extra: an optional dependency is not installed
├─ MissingProgram          program, package: a system program is not installed
├─ DataError               file: a data set or image that cannot be read
├─ TraceError              file, line: a network or compute trace that cannot be read
├─ BundleError             file
│  ├─ ManifestError        field: missing, malformed, or of an unknown schema
│  ├─ IntegrityError       expected_sha256, actual_sha256
│  ├─ MissingFile          a file that the manifest names is not there
│  ├─ UnsafePath           a path that would leave the bundle
│  ├─ UnsafeModel          a model file that is malformed, calls foreign operators, or holds no numbers
│  ├─ NotSigned            a trusted signature is asked for, and there is none
│  ├─ SignatureError       key_id: malformed, by a key that is not trusted, or of something else
│  ├─ OlderSerial          serial, least_serial: an older bundle than may be used here
│  └─ ShapeError           stage, expected, got: what a stage gives is not what the next one takes
├─ RunnerError             stage
│  └─ VariantRejected      variant, max_abs_diff, tolerance: golden vectors failed on this board
├─ OffloadError            recoverable: it never leaves the engine once there is an answer
│  ├─ LinkDown
│  ├─ NoCredit             in_flight, in_flight_bytes: the window is full
│  ├─ OffloadTimeout       also a TimeoutError; deadline_ms, waited_ms
│  ├─ WireError            malformed, oversized, or another wire version
│  ├─ GatewayRefused       reason, retry_after_ms: busy, unknown_bundle, too_late, …
│  └─ OffloadCancelled     nobody waited for its reply any more, and the request was taken back
├─ BrokerError             host, port: no broker, or one that refuses us
├─ DeviceError             a source, sink or board profile that cannot be used
├─ KeyFileError            file: a key file that cannot be read, unlocked or written
├─ TrainingDiverged         loss, gradient_norm, batch: training came to what is no number
├─ DeployError             host: a board that cannot be reached, prepared or switched
└─ ConvertError            workstation only
   ├─ UnsupportedModel     expected: what was wanted of the network
   ├─ CannotCut            model: exits cannot be attached to it
   ├─ LoweringError        stage
   ├─ ToolError            a converter's own environment cannot be made
   └─ ParityError          stage, tensor, max_abs_diff, tolerance, operator
"""

from __future__ import annotations


class EdgeExitError(Exception):
    """Base of the tree: `what` happened, `why`, and how to `fix` it, each one plain sentence."""

    def __init__(self, what: str, *, why: str | None = None, fix: str | None = None) -> None:
        super().__init__(what if why is None else f"{what}: {why}")
        self.what = what
        self.why = why
        self.fix = fix


class ConfigError(EdgeExitError):
    """A configuration file, profile or flag cannot be understood."""

    def __init__(
        self,
        what: str,
        *,
        file: str | None = None,
        key: str | None = None,
        why: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.file = file
        self.key = key


class MissingExtra(EdgeExitError):
    """An optional Python dependency is needed and not installed."""

    def __init__(self, package: str, *, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{package} is not installed",
            why=f"{needed_for} needs it",
            fix=f"pip install 'edgeexit[{extra}]'",
        )
        self.package = package
        self.extra = extra


class MissingProgram(EdgeExitError):
    """A system program is needed and not installed."""

    def __init__(self, program: str, *, package: str, needed_for: str) -> None:
        super().__init__(
            f"{program} is not installed",
            why=f"{needed_for} needs it",
            fix=f"sudo apt-get install {package}",
        )
        self.program = program
        self.package = package


class DataError(EdgeExitError):
    """A data set or an image cannot be read."""

    def __init__(self, what: str, *, file: str, why: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, why=why, fix=fix)
        self.file = file


class TraceError(EdgeExitError):
    """A trace file cannot be read; `line` counts from 1 and is None where the whole file is meant."""

    def __init__(self, why: str, *, file: str, line: int | None = None, fix: str | None = None) -> None:
        place = file if line is None else f"{file}:{line}"
        super().__init__(f"{place}: not a usable trace", why=why, fix=fix)
        self.file = file
        self.line = line


class BundleError(EdgeExitError):
    """A bundle cannot be used; nothing of it was loaded."""

    def __init__(self, what: str, *, file: str, why: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, why=why, fix=fix)
        self.file = file


class ManifestError(BundleError):
    """The manifest is malformed, of an unknown schema, or contradicts itself."""

    def __init__(self, what: str, *, file: str, field: str, why: str | None = None) -> None:
        super().__init__(what, file=file, why=why, fix="convert the network again")
        self.field = field


class IntegrityError(BundleError):
    """A file is not the one that the manifest names."""

    def __init__(self, *, file: str, expected_sha256: str, actual_sha256: str) -> None:
        super().__init__(
            f"{file} was changed after the bundle was made",
            file=file,
            why=f"sha256 is {actual_sha256[:12]}…, the manifest says {expected_sha256[:12]}…",
            fix="flash or copy the bundle again",
        )
        self.expected_sha256 = expected_sha256
        self.actual_sha256 = actual_sha256


class MissingFile(BundleError):
    """A file that the manifest names is not there."""

    def __init__(self, *, file: str) -> None:
        super().__init__(
            f"{file} is missing",
            file=file,
            why="a bundle holds a manifest.json and every file that it names",
            fix="name a bundle's directory, or flash or copy the bundle again",
        )


class UnsafePath(BundleError):
    """A path in the manifest, or a link on disk, would leave the bundle."""

    def __init__(self, *, file: str, why: str) -> None:
        super().__init__(
            f"{file!r} is refused", file=file, why=why, fix="do not use bundles from this source"
        )


class UnsafeModel(BundleError):
    """A model file is not one that an interpreter may be given."""

    def __init__(
        self, *, file: str, why: str, fix: str | None = "do not use bundles from this source"
    ) -> None:
        super().__init__(f"{file} is refused", file=file, why=why, fix=fix)


class NotSigned(BundleError):
    """Trusted keys are configured, and the bundle carries no signature at all."""

    def __init__(self, *, file: str) -> None:
        super().__init__(
            "the bundle is not signed",
            file=file,
            why="trusted keys are configured, so only bundles signed by one of them may be used",
            fix="edgeexit bundle sign BUNDLE --key KEY",
        )


class SignatureError(BundleError):
    """A signature is malformed, by a key that is not trusted, or of something else.

    `key_id` is the key it claims to be by, None where it cannot be read.
    """

    def __init__(
        self, what: str, *, file: str, key_id: str | None, why: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(what, file=file, why=why, fix=fix or "get the bundle again from who signed it")
        self.key_id = key_id


class OlderSerial(BundleError):
    """A bundle is older than may be used here."""

    def __init__(self, *, file: str, name: str, serial: int, least_serial: int) -> None:
        super().__init__(
            f"{name} with serial {serial} is too old",
            file=file,
            why=f"serial {least_serial} or a later one is asked for",
            fix="use the newer bundle, or allow an older one on purpose",
        )
        self.serial = serial
        self.least_serial = least_serial


class ShapeError(BundleError):
    """What one stage gives is not what the next one takes."""

    def __init__(self, *, file: str, stage: int, expected: str, got: str) -> None:
        super().__init__(
            f"stage {stage} does not fit",
            file=file,
            why=f"expected {expected}, got {got}",
            fix="convert the network again",
        )
        self.stage = stage
        self.expected = expected
        self.got = got


class RunnerError(EdgeExitError):
    """A stage cannot be loaded or run here."""

    def __init__(
        self, what: str, *, stage: int | None = None, why: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(what, why=why, fix=fix)
        self.stage = stage


class VariantRejected(RunnerError):
    """A stage variant does not reproduce its golden vectors on this board."""

    def __init__(self, *, stage: int, variant: str, max_abs_diff: float, tolerance: float) -> None:
        super().__init__(
            f"stage {stage}, variant {variant}: wrong answers on this board",
            stage=stage,
            why=f"golden vectors differ by {max_abs_diff:.3g}, {tolerance:.3g} is allowed",
            fix="use another variant or another runtime (ai-edge-litert)",
        )
        self.variant = variant
        self.max_abs_diff = max_abs_diff
        self.tolerance = tolerance


class OffloadError(EdgeExitError):
    """An offload failed; the device goes on without it."""


class LinkDown(OffloadError):
    """There is no connection to the broker, or no gateway behind it."""

    def __init__(self, why: str) -> None:
        super().__init__("link is down", why=why)


class NoCredit(OffloadError):
    """The credit window is full: nothing more may be in flight now."""

    def __init__(self, *, in_flight: int, in_flight_bytes: int) -> None:
        super().__init__("no credit", why=f"{in_flight} requests, {in_flight_bytes} bytes are in flight")
        self.in_flight = in_flight
        self.in_flight_bytes = in_flight_bytes


class OffloadTimeout(OffloadError, TimeoutError):
    """No reply came while one could still teach us something."""

    def __init__(self, *, deadline_ms: float, waited_ms: float) -> None:
        super().__init__("no reply", why=f"waited {waited_ms:.0f} ms, deadline was {deadline_ms:.0f} ms")
        self.deadline_ms = deadline_ms
        self.waited_ms = waited_ms


class WireError(OffloadError):
    """Bytes from the network are not a frame of ours."""

    def __init__(self, why: str, *, status: int = 400) -> None:
        super().__init__("malformed frame", why=why)
        self.status = status


class GatewayRefused(OffloadError):
    """A gateway answered that it will not run this request.

    Units: queue_ms and compute_ms, what it spent there before, None where the gateway does not say.
    """

    def __init__(
        self,
        *,
        reason: str,
        retry_after_ms: float | None = None,
        queue_ms: float | None = None,
        compute_ms: float | None = None,
    ) -> None:
        super().__init__("gateway refused", why=reason)
        self.reason = reason
        self.retry_after_ms = retry_after_ms
        self.queue_ms = queue_ms
        self.compute_ms = compute_ms


class OffloadCancelled(OffloadError):
    """A request was taken back: by the gateway that had it, or before it had left.

    Units: queue_ms and compute_ms, what it spent at the gateway before, None where it never left.
    """

    def __init__(self, *, queue_ms: float | None = None, compute_ms: float | None = None) -> None:
        super().__init__("offload ended", why="cancelled")
        self.queue_ms = queue_ms
        self.compute_ms = compute_ms


class BrokerError(EdgeExitError):
    """No broker can be reached or started, or it refuses us."""

    def __init__(self, why: str, *, host: str, port: int, fix: str | None = None) -> None:
        super().__init__(f"no broker at {host}:{port}", why=why, fix=fix)
        self.host = host
        self.port = port


class DeviceError(EdgeExitError):
    """A source, a sink or a board profile cannot be used."""


class KeyFileError(EdgeExitError):
    """A key file cannot be read, unlocked or written."""

    def __init__(self, what: str, *, file: str, why: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, why=why, fix=fix)
        self.file = file


class TrainingDiverged(EdgeExitError):
    """A loss or a gradient is no number; the network is as before that step."""

    def __init__(self, *, loss: float, gradient_norm: float, batch: int) -> None:
        super().__init__(
            f"training diverged at batch {batch}",
            why=f"the loss is {loss:g}, the norm of its gradients {gradient_norm:g}",
            fix="lower learning_rate, raise warmup_fraction, or look for data that are no numbers",
        )
        self.loss = loss
        self.gradient_norm = gradient_norm
        self.batch = batch


class DeployError(EdgeExitError):
    """A board cannot be reached, prepared or switched; what it ran before still runs."""

    def __init__(self, what: str, *, host: str, why: str | None = None, fix: str | None = None) -> None:
        super().__init__(what, why=why, fix=fix)
        self.host = host


class ConvertError(EdgeExitError):
    """A network cannot become a bundle; nothing was written."""


class UnsupportedModel(ConvertError):
    """The network does not keep the MultiExitNetwork protocol."""

    def __init__(self, what: str, *, expected: str) -> None:
        super().__init__(what, why=f"expected {expected}", fix="see edgeexit/models/protocol.py")
        self.expected = expected


class CannotCut(ConvertError):
    """Exits cannot be attached to this model, because of how it is built."""

    def __init__(self, *, model: str, why: str, fix: str | None = None) -> None:
        super().__init__(
            f"{model} cannot be cut into stages",
            why=why,
            fix=fix or "see docs/models.md for what can; or keep edgeexit/models/protocol.py yourself",
        )
        self.model = model


class LoweringError(ConvertError):
    """A back end cannot lower this stage."""

    def __init__(self, why: str, *, stage: int) -> None:
        super().__init__(f"stage {stage} cannot be lowered", why=why)
        self.stage = stage


class ToolError(ConvertError):
    """A tool that has an environment of its own cannot be installed there."""


class ParityError(ConvertError):
    """A lowered stage does not compute what the network computes.

    `operator` is the first one after which it does not, None where that was not looked for or not found.
    """

    def __init__(
        self,
        *,
        stage: int,
        tensor: str,
        max_abs_diff: float,
        tolerance: float,
        operator: str | None = None,
    ) -> None:
        after = "" if operator is None else f"; the first operator that strays is {operator}"
        super().__init__(
            f"stage {stage}: {tensor} differs from the network",
            why=f"by {max_abs_diff:.3g}, {tolerance:.3g} is allowed{after}",
        )
        self.stage = stage
        self.tensor = tensor
        self.max_abs_diff = max_abs_diff
        self.tolerance = tolerance
        self.operator = operator
