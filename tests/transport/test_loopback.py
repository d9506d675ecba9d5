"""The reference transport: what every transport does with good replies, bad ones and none."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.errors import GatewayRefused, LinkDown, NoCredit, OffloadCancelled, OffloadTimeout, WireError
from edgeexit.transport import frames, wire
from edgeexit.transport.exchange import Exchange, Fate, ServedBundle
from edgeexit.transport.loopback import LinkConditions, LoopbackTransport
from edgeexit.transport.pending import Window
from edgeexit.transport.protocol import OffloadReply, OffloadRequest
from edgeexit.transport.status import Status

Ask = Callable[..., OffloadRequest]
Serve = Callable[[bytes], bytes]
Wait = Callable[[Callable[[], bool]], None]


@pytest.fixture
def transport(serve: Serve, bundle: ServedBundle) -> Iterator[LoopbackTransport]:
    transport = LoopbackTransport(serve, bundle, late_ms=200.0)
    transport.open()
    yield transport
    transport.close()


def _result(future: Future[OffloadReply]) -> OffloadReply:
    return future.result(timeout=60.0)


def _error(future: Future[OffloadReply]) -> BaseException | None:
    return future.exception(timeout=60.0)


@pytest.mark.parametrize("codec", ["raw", "f16", "int8", "u8"])
def test_a_reply_says_what_it_answers_and_what_it_cost(
    transport: LoopbackTransport, ask: Ask, codec: str
) -> None:
    reply = _result(transport.submit(ask(frame=7, boundary=2, codec=codec, values=1000)))
    assert reply.output.tolist() == [7.0, 2.0, 1000.0]
    assert (reply.gateway, reply.exit, reply.queue_ms, reply.compute_ms) == ("loopback", 3, 0.5, 1.5)
    assert reply.uplink_bytes > reply.downlink_bytes > 0
    assert reply.elapsed_ms >= 0.0


def test_a_request_states_the_time_that_is_left_for_the_gateway(bundle: ServedBundle, ask: Ask) -> None:
    sent: list[bytes] = []
    exchange = Exchange(bundle, boot_id=secrets.token_bytes(8), clock=lambda: 0.0, window=Window())

    def send(payload: bytes, _: bytes) -> None:
        sent.append(payload)

    for round_trip_ms in (None, 15.0):
        request = replace(ask(budget_ms=100.0), round_trip_ms=round_trip_ms)
        exchange.submit(request, gateway="porch", cap_bytes=wire.FRAME_CAP_BYTES, send=send)
    assert [wire.decode(payload).header.budget_left_ms for payload in sent] == [100.0, 85.0]


def test_out_of_credit_is_refused_and_never_queued(transport: LoopbackTransport, ask: Ask) -> None:
    transport.conditions = LinkConditions(up_ms=60_000.0)
    futures = [transport.submit(ask(frame=frame)) for frame in range(2)]
    with pytest.raises(NoCredit):
        transport.submit(ask())
    status = transport.status()
    assert status.in_flight == 2
    assert status.in_flight_bytes > 0
    transport.cut()
    assert all(isinstance(_error(future), LinkDown) for future in futures)
    assert transport.status().in_flight == 0


def test_the_deadline_frees_credit_and_a_late_reply_still_teaches(
    serve: Serve, bundle: ServedBundle, ask: Ask, wait: Wait
) -> None:
    transport = LoopbackTransport(serve, bundle, conditions=LinkConditions(down_ms=60.0), late_ms=60_000.0)
    transport.open()
    future = transport.submit(ask(budget_ms=1.0))
    wait(lambda: transport.status().in_flight == 0)
    assert _result(future).elapsed_ms >= 60.0
    assert transport.counters.late == 1
    transport.close()


def test_silence_ends_in_a_timeout(transport: LoopbackTransport, ask: Ask) -> None:
    transport.conditions = LinkConditions(loss=1.0)
    error = _error(transport.submit(ask(budget_ms=1.0)))
    assert isinstance(error, OffloadTimeout)
    assert error.waited_ms >= 200.0


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_a_refusal_has_its_reason(transport: LoopbackTransport, ask: Ask, status: Status) -> None:
    transport.conditions = LinkConditions(refuse=status, retry_after_ms=25.0)
    error = _error(transport.submit(ask()))
    if status is Status.CANCELLED:
        assert isinstance(error, OffloadCancelled)
        return
    assert isinstance(error, GatewayRefused)
    assert status.reason is not None
    assert error.reason == status.reason.value
    assert error.retry_after_ms == 25.0


def test_what_is_taken_back_is_not_served(serve: Serve, bundle: ServedBundle, ask: Ask, wait: Wait) -> None:
    served: list[int] = []
    entered, gate = threading.Event(), threading.Event()

    def serve_slowly(payload: bytes) -> bytes:
        served.append(wire.decode(payload).header.frame)
        entered.set()
        assert gate.wait(60.0)
        return serve(payload)

    transport = LoopbackTransport(serve_slowly, bundle)
    transport.open()
    first, second = transport.submit(ask(frame=1)), transport.submit(ask(frame=2))
    assert entered.wait(60.0)
    assert transport.withdraw(second) == frames.CANCEL_BYTES
    assert transport.withdraw(first) == frames.CANCEL_BYTES, "it may be served already, who knows"
    assert transport.status().in_flight == 2, "until the gateway's word is here"
    gate.set()
    assert _result(first).output[0] == 1.0
    error = _error(second)
    assert isinstance(error, OffloadCancelled)
    assert (error.queue_ms, error.compute_ms) == (0.0, 0.0)
    assert served == [1]
    assert transport.withdraw(first) == transport.withdraw(second) == 0, "ended is ended"
    assert transport.counters.cancelled == 1
    assert transport.status().in_flight == 0
    transport.close()


def test_a_lost_cancel_changes_nothing(transport: LoopbackTransport, ask: Ask) -> None:
    transport.conditions = LinkConditions(up_ms=60_000.0)
    future = transport.submit(ask())
    transport.conditions = LinkConditions(loss=1.0)
    assert transport.withdraw(future) == frames.CANCEL_BYTES
    assert not future.done()
    transport.cut()
    assert isinstance(future.exception(timeout=0), LinkDown)
    assert transport.withdraw(future) == 0


def test_a_second_copy_of_a_reply_is_counted_and_dropped(
    transport: LoopbackTransport, ask: Ask, wait: Wait
) -> None:
    transport.conditions = LinkConditions(copies=3)
    _result(transport.submit(ask()))
    wait(lambda: transport.counters.duplicate == 2)
    assert transport.counters.answered == 1


def test_a_cut_fails_what_is_pending_at_once_and_mending_resumes(
    transport: LoopbackTransport, ask: Ask
) -> None:
    transport.conditions = LinkConditions(up_ms=60_000.0)
    future = transport.submit(ask())
    transport.cut("cable pulled")
    assert isinstance(future.exception(timeout=0), LinkDown)
    with pytest.raises(LinkDown):
        transport.submit(ask())
    with pytest.raises(LinkDown):
        transport.probe(100)
    assert not transport.status().up
    transport.mend()
    transport.conditions = LinkConditions()
    assert _result(transport.submit(ask(frame=9))).output[0] == 9.0


def test_a_gateway_that_raises_is_a_refusal(bundle: ServedBundle, ask: Ask) -> None:
    def broken(payload: bytes) -> bytes:
        raise RuntimeError("out of order")

    transport = LoopbackTransport(broken, bundle)
    transport.open()
    try:
        error = _error(transport.submit(ask()))
        assert isinstance(error, GatewayRefused)
        assert error.reason == "failed"
    finally:
        transport.close()


@pytest.mark.parametrize("size_bytes", [0, 1000, 100_000, 10_000_000])
def test_a_ping_has_about_the_size_asked_for(transport: LoopbackTransport, size_bytes: int) -> None:
    pong = transport.probe(size_bytes).result(timeout=60.0)
    capped = min(size_bytes, wire.FRAME_CAP_BYTES)
    assert pong.uplink_bytes <= wire.FRAME_CAP_BYTES
    assert abs(pong.uplink_bytes - max(capped, 64)) <= 64


def test_what_does_not_fit_in_a_message_is_not_sent(transport: LoopbackTransport, ask: Ask) -> None:
    with pytest.raises(WireError) as caught:
        transport.submit(ask(values=300_000))
    assert caught.value.status == Status.TOO_LARGE
    with pytest.raises(WireError):
        transport.submit(ask(codec="zip"))
    assert transport.status().in_flight == 0
    assert transport.counters.sent == 0


def test_callbacks_may_submit_again(transport: LoopbackTransport, ask: Ask) -> None:
    done = threading.Event()

    def again(ended: Future[OffloadReply]) -> None:
        transport.submit(ask(frame=2)).add_done_callback(lambda _: done.set())

    transport.submit(ask(frame=1)).add_done_callback(again)
    assert done.wait(60.0)


def test_closing_fails_what_is_pending_and_may_be_repeated(
    serve: Serve, bundle: ServedBundle, ask: Ask
) -> None:
    transport = LoopbackTransport(serve, bundle, conditions=LinkConditions(up_ms=60_000.0))
    transport.open()
    future = transport.submit(ask())
    transport.close()
    assert isinstance(future.exception(timeout=0), LinkDown)
    transport.close()


class ExchangeInInventedTime:
    """An exchange with one request under way, and the frame that asked."""

    def __init__(self, bundle: ServedBundle, request: OffloadRequest) -> None:
        self.now_ms = 0.0
        self.sent: list[bytes] = []
        self.exchange = Exchange(
            bundle, boot_id=secrets.token_bytes(8), clock=lambda: self.now_ms, window=Window()
        )
        self.future = self.exchange.submit(
            request,
            gateway="gw-1",
            cap_bytes=wire.FRAME_CAP_BYTES,
            send=lambda payload, key: self.sent.append(payload),
        )

    @property
    def asked(self) -> wire.Header:
        return wire.decode(self.sent[0]).header


@pytest.fixture
def rig(bundle: ServedBundle, ask: Ask) -> ExchangeInInventedTime:
    return ExchangeInInventedTime(bundle, ask())


def _reply(asked: wire.Header, output: list[float], exit_index: int = 3) -> bytes:
    return frames.reply_to(
        asked, np.array(output, np.float32), exit_index=exit_index, queue_ms=1.0, compute_ms=2.0
    )


def test_network_time_is_what_the_gateway_did_not_use(rig: ExchangeInInventedTime) -> None:
    rig.now_ms = 10.0
    outcome = rig.exchange.accept(_reply(rig.asked, [1, 2, 3]))
    assert outcome is not None
    assert (outcome.fate, outcome.elapsed_ms, outcome.network_ms) == (Fate.ANSWERED, 10.0, 7.0)


@pytest.mark.parametrize(
    ("output", "exit_index"),
    [([1.0], 3), ([1.0, 2.0, float("nan")], 3), ([1.0, 2.0, 3.0], 1), ([1.0, 2.0, 3.0], 4)],
)
def test_an_answer_that_cannot_be_one_fails_the_request(
    rig: ExchangeInInventedTime, output: list[float], exit_index: int
) -> None:
    outcome = rig.exchange.accept(_reply(rig.asked, output, exit_index))
    assert outcome is not None
    assert outcome.fate is Fate.CORRUPT
    assert isinstance(rig.future.exception(timeout=0), WireError)
    assert rig.exchange.counters.corrupt == 1


def test_replies_to_others_are_harmless(rig: ExchangeInInventedTime, bundle: ServedBundle, ask: Ask) -> None:
    other = ExchangeInInventedTime(bundle, ask())
    assert rig.exchange.accept(_reply(other.asked, [1, 2, 3])) is None
    assert rig.exchange.counters.foreign == 1
    unknown = wire.Header(
        kind=wire.Kind.REPLY, request_id=rig.asked.request_id[:8] + bytes([9] * 8), bundle_digest=bytes(16)
    )
    assert rig.exchange.accept(wire.encode(unknown)) is None
    assert rig.exchange.counters.unknown == 1
    mixed_up = wire.Header(kind=wire.Kind.REPLY, request_id=rig.asked.request_id, bundle_digest=bytes(16))
    assert rig.exchange.accept(wire.encode(mixed_up)) is None
    assert rig.exchange.counters.mismatched == 1
    assert rig.exchange.accept(rig.sent[0]) is None
    assert rig.exchange.accept(_reply(rig.asked, [1, 2, 3]), correlation=bytes(16)) is None
    assert rig.exchange.counters.malformed == 2
    assert not rig.future.done()
    rig.exchange.accept(_reply(rig.asked, [1, 2, 3]), correlation=rig.asked.request_id)
    assert rig.future.result(timeout=0).output.tolist() == [1.0, 2.0, 3.0]


def test_a_refusal_by_a_gateway_that_could_not_read_counts(rig: ExchangeInInventedTime) -> None:
    refusal = frames.refusal_of_unread(rig.asked.request_id, Status.UNSUPPORTED_VERSION)
    assert refusal is not None
    rig.exchange.accept(refusal)
    error = rig.future.exception(timeout=0)
    assert isinstance(error, GatewayRefused)
    assert error.reason == "unsupported_version"
    assert frames.refusal_of_unread(b"short", Status.MALFORMED) is None
    assert frames.refusal_of_unread(None, Status.MALFORMED) is None


@given(st.binary(max_size=300))
def test_any_bytes_on_the_reply_topic_are_harmless(payload: bytes) -> None:
    exchange = Exchange(ServedBundle("ab" * 32, 4), boot_id=bytes(8), clock=lambda: 0.0, window=Window())
    assert exchange.accept(payload) is None
    assert exchange.counters.malformed == 1


@given(st.data())
def test_a_damaged_reply_never_raises(data: st.DataObject) -> None:
    asked = wire.Header(kind=wire.Kind.REQUEST, request_id=bytes(16), bundle_digest=bytes(16))
    damaged = bytearray(_reply(asked, [1, 2, 3]))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    exchange = Exchange(ServedBundle("00" * 32, 4), boot_id=bytes(8), clock=lambda: 0.0, window=Window())
    exchange.accept(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
