"""The frames that programs exchange: request, reply, refusal, cancel, ping and pong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeexit.errors import WireError
from edgeexit.transport import wire
from edgeexit.transport.status import Status
from edgeexit.transport.wire import Frame, Header, Kind, WireTensor

CONTENT_TYPE = "application/vnd.edgeexit.tensor"

# The one tensor of a reply, and the one of a ping that is made larger than its header.
OUTPUT = "output"
FILLING = "filling"

# Stands in a refusal to a request that could not be read far enough to know its bundle.
UNKNOWN_DIGEST = bytes(wire.DIGEST_BYTES)

# The size of every cancel: policies must know it before there is one.
CANCEL_BYTES = 80


def digest_bytes(bundle_digest: str) -> bytes:
    """The half of a bundle's digest that travels. Raises: WireError when it is not a digest in hex."""
    try:
        digest = bytes.fromhex(bundle_digest)[: wire.DIGEST_BYTES]
    except ValueError as error:
        raise WireError(f"{bundle_digest[:20]!r} is not a digest") from error
    if len(digest) != wire.DIGEST_BYTES:
        raise WireError(f"{bundle_digest[:20]!r} is not a digest")
    return digest


def request(
    request_id: bytes,
    *,
    bundle_digest: str,
    boundary: int,
    last_stage: int,
    frame: int,
    budget_left_ms: float | None,
    tensors: Sequence[WireTensor],
    reply_topic: str = "",
    cap_bytes: int = wire.FRAME_CAP_BYTES,
) -> bytes:
    """Ask for stages boundary … last_stage. Raises: WireError when it does not fit in one message."""
    header = Header(
        kind=Kind.REQUEST,
        request_id=request_id,
        bundle_digest=digest_bytes(bundle_digest),
        stage_in=boundary,
        stage_out=last_stage,
        frame=frame,
        budget_left_ms=budget_left_ms,
        reply_topic=reply_topic,
    )
    return wire.encode(header, tensors, cap_bytes=cap_bytes)


def reply_to(
    asked: Header, output: NDArray[np.float32], *, exit_index: int, queue_ms: float, compute_ms: float
) -> bytes:
    """Answer a request with the output of one exit. Shapes: output (C,)."""
    header = Header(
        kind=Kind.REPLY,
        request_id=asked.request_id,
        bundle_digest=asked.bundle_digest,
        stage_in=asked.stage_in,
        stage_out=exit_index,
        frame=asked.frame,
        queue_ms=queue_ms,
        compute_ms=compute_ms,
    )
    return wire.encode(header, [WireTensor.of(OUTPUT, output.astype(np.float32, copy=False))])


def cancel(request_id: bytes, *, bundle_digest: bytes, boundary: int) -> bytes:
    """Take a request back: nobody waits for its reply any more."""
    return wire.encode(
        Header(kind=Kind.CANCEL, request_id=request_id, bundle_digest=bundle_digest, stage_in=boundary)
    )


def refusal_of(
    asked: Header,
    status: Status,
    *,
    retry_after_ms: float | None = None,
    queue_ms: float | None = None,
    compute_ms: float | None = None,
) -> bytes:
    """Answer a request with a status, and with what it had cost by then where that is known."""
    return wire.encode(
        Header(
            kind=Kind.REPLY,
            request_id=asked.request_id,
            bundle_digest=asked.bundle_digest,
            stage_in=asked.stage_in,
            stage_out=asked.stage_in,
            frame=asked.frame,
            status=status,
            retry_after_ms=retry_after_ms,
            queue_ms=queue_ms,
            compute_ms=compute_ms,
        )
    )


def refusal_of_unread(correlation: bytes | None, status: Status) -> bytes | None:
    """Answer a message that could not be read; None where nobody could tell what it answers."""
    if correlation is None or len(correlation) != wire.REQUEST_ID_BYTES:
        return None
    return wire.encode(
        Header(kind=Kind.REPLY, request_id=correlation, bundle_digest=UNKNOWN_DIGEST, status=status)
    )


def ping(request_id: bytes, *, bundle_digest: str, payload_bytes: int = 0) -> bytes:
    """A ping; its frame has about `payload_bytes`, and never less than a header takes."""
    header = Header(kind=Kind.PING, request_id=request_id, bundle_digest=digest_bytes(bundle_digest))
    # A header with one tensor description takes 96 bytes.
    filling = payload_bytes - 96
    if filling <= 0:
        return wire.encode(header)
    cap_bytes = max(wire.FRAME_CAP_BYTES, wire.aligned(payload_bytes) + wire.HEADER_CAP_BYTES)
    return wire.encode(header, [WireTensor.of(FILLING, np.zeros(filling, np.uint8))], cap_bytes=cap_bytes)


def pong_to(asked: Header) -> bytes:
    """Answer a ping; always small."""
    return wire.encode(Header(kind=Kind.PONG, request_id=asked.request_id, bundle_digest=asked.bundle_digest))


def output_of(frame: Frame) -> NDArray[np.float32]:
    """The output that a reply carries. Shapes: (C,). Raises: WireError when it is not one finite vector."""
    if len(frame.tensors) != 1 or frame.tensors[0].name != OUTPUT:
        raise WireError("a reply carries one output")
    data = frame.tensors[0].data
    if data.dtype != np.float32 or data.ndim != 1:
        raise WireError(f"an output is a vector of float32, not {data.dtype}{list(data.shape)}")
    output = data.astype(np.float32)
    # The array's own all() is many times as much code.
    if np.count_nonzero(np.isfinite(output)) != output.size:
        raise WireError("the output holds values that are not finite")
    return output
