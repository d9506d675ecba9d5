"""Which way of sending a policy takes: few bytes where the link is slow, all of them where it is fast."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeexit.bundle import Bundle
from edgeexit.decide.calibration import quality_tables
from edgeexit.decide.decision import Action, Evidence, OffloadOption, Situation
from edgeexit.decide.latency import LatencyModel
from edgeexit.decide.link import LinkEstimator
from edgeexit.decide.policies.hedged import HedgedGain

# Of a ViT-Tiny at 224 pixels, as the benchmark of boundaries finds sizes and costs to lie to each other.
RAW = OffloadOption(1, "raw", 75_800)
PACKED = OffloadOption(1, "int8-zstd", 14_000, encode_ms=1.0, quality_cost=0.001)
LEARNT = OffloadOption(1, "bottleneck4", 600, encode_ms=2.0, quality_cost=0.005)
JPEG = OffloadOption(0, "jpeg85", 6_000, encode_ms=4.0, quality_cost=0.003)
TAUGHT = (JPEG, LEARNT, RAW)
ROUND_TRIP_MS, SERVER_MS = 10.0, 5.0


def taught(bytes_per_ms: float) -> LinkEstimator:
    """An estimator that has seen a steady link of this speed."""
    link, now_ms = LinkEstimator(), 0.0
    link.connection(True, now_ms)
    for token in range(40):
        for ping in (True, False):
            now_ms += 50.0
            if ping:
                link.pinged(200, ROUND_TRIP_MS, now_ms)
                continue
            option = TAUGHT[token % 3]
            link.sent(token, option, now_ms)
            elapsed_ms = ROUND_TRIP_MS + option.payload_bytes / bytes_per_ms + SERVER_MS
            now_ms += elapsed_ms
            link.replied(token, elapsed_ms, 0.0, SERVER_MS, 200, now_ms)
    return link


def situation(bundle: Bundle, bytes_per_ms: float, options: tuple[OffloadOption, ...]) -> Situation:
    """After a doubtful first exit, with no time to compute further here."""
    link = taught(bytes_per_ms)
    prior = tuple(exit_.accuracy_float for exit_ in bundle.manifest.exits)
    return Situation(
        remaining_ms=60.0,
        elapsed_ms=40.0,
        stages_done=1,
        stage_count=3,
        evidence=Evidence(0, 0.45, 2, (0.4, 0.8, 0.9)),
        prior_quality=prior,
        compute=LatencyModel((40.0, 400.0, 400.0)).forecast(0.0),
        link=link.forecast(link_now_ms(bytes_per_ms)),
        options=options,
        in_flight=None,
    )


def link_now_ms(bytes_per_ms: float) -> float:
    """When the last of what was taught had come."""
    waits = sum(100.0 + ROUND_TRIP_MS + SERVER_MS for _ in range(40))
    return waits + sum(TAUGHT[token % 3].payload_bytes / bytes_per_ms for token in range(40))


def choice(bundle: Bundle, bytes_per_ms: float, *options: OffloadOption) -> str | None:
    policy = HedgedGain(tables=quality_tables(bundle.manifest.exits, ["f32"] * 3))
    decision = policy.decide(situation(bundle, bytes_per_ms, options))
    return decision.option.codec if decision.action is Action.OFFLOAD and decision.option else None


@pytest.mark.parametrize(
    ("bytes_per_ms", "codec"),
    [
        (30.0, "bottleneck4"),  # 0.24 Mbit/s: a JPEG would take 200 ms
        (200.0, "bottleneck4"),  # 1.6 Mbit/s: a JPEG comes too near to the deadline
        (20_000.0, "raw"),  # 160 Mbit/s
    ],
)
def test_a_slow_link_carries_few_bytes_and_a_fast_one_all(
    tiny_bundle: Bundle, bytes_per_ms: float, codec: str
) -> None:
    assert choice(tiny_bundle, bytes_per_ms, RAW, PACKED, LEARNT, JPEG) == codec


def test_without_a_bottleneck_a_slow_link_carries_a_jpeg(tiny_bundle: Bundle) -> None:
    assert choice(tiny_bundle, 400.0, RAW, PACKED, JPEG) == "jpeg85"
    assert choice(tiny_bundle, 20_000.0, RAW, PACKED, JPEG) == "raw"


def test_compression_is_used_where_its_time_is_less_than_that_of_the_bytes_it_saves(
    tiny_bundle: Bundle,
) -> None:
    plain = OffloadOption(1, "int8", 19_000, encode_ms=0.2, quality_cost=0.001)
    quick = replace(PACKED, encode_ms=0.5)
    slow = replace(PACKED, encode_ms=35.0)
    # 19 kB take 47 ms of the 60 that are left at 400 bytes a ms, 14 kB take 35.
    assert choice(tiny_bundle, 400.0, plain, quick) == "int8-zstd"
    assert choice(tiny_bundle, 600.0, plain, slow) == "int8"
