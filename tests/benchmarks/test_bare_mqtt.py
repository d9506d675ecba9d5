"""The client that tells the broker's share speaks MQTT as far as a real broker wants it."""

from __future__ import annotations

import threading

import pytest

from benchmarks._bare_mqtt import ANSWER, ANSWERED, ASKED, BareClient
from edgeexit.transport.broker import Broker

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("qos", [0, 1])
def test_it_exchanges_messages_of_any_size_through_a_broker(qos: int) -> None:
    sizes_bytes = (0, 1_000, 150_000, 600_000)
    with Broker(kind="mosquitto") as broker:
        asker = BareClient(broker.port, "asker", ANSWERED, qos)
        answerer = BareClient(broker.port, "answerer", ASKED, qos)

        def answer() -> None:
            for _ in sizes_bytes:
                identifier = answerer.receive()
                assert len(identifier) == 2 * qos
                answerer.publish(ANSWERED, ANSWER)
                answerer.acknowledge(identifier)

        thread = threading.Thread(target=answer)
        thread.start()
        for size_bytes in sizes_bytes:
            assert asker.exchange_ms(bytes(size_bytes)) > 0.0
        thread.join()
        asker.close()
        answerer.close()
