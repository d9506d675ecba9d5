"""The scenario grid as data: which boards, links, deadlines, loads and outages are put together.

Deadlines are in units of the board's full local time, so that a band asks the same of every board.
Source: specification of the decision policy, section 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeexit.decide.decision import OffloadOption
from edgeexit.replay.compute import ComputeRule, Contended, ThermalRamp, Unloaded
from edgeexit.replay.deadlines import ChangedInFrame, DeadlineRule, Redrawn, Swinging, TightBursts
from edgeexit.replay.links import Link
from edgeexit.replay.outages import Outage, OutageKind, repeated
from edgeexit.replay.pool import Fleet
from edgeexit.replay.profile import CostProfile
from edgeexit.replay.recording import Recording
from edgeexit.replay.world import Scenario, ServerModel

# Published times of ViT-Tiny int8 on the boards, whole network, batch 1.
# Source: Nota-NetsPresso device benchmarks, July 2025.
PI_4_MS = 197.1
PI_5_MS = 49.8
# A desktop gateway's time for the whole of such a network.
GATEWAY_MS = 4.0
# A 224 px JPEG is 10 to 20 kB; tokens of 197 × 192 as int8 are 37,824 bytes.
IMAGE_BYTES = 15_000
TOKENS_BYTES = 37_824
# Encoding such a JPEG takes 0.17 ms on one x86-64 core (libjpeg-turbo, measured), hence about 0.8 ms on
# a Pi 4, which is four to five times slower at such code: 0.4 % of its time for the network.
IMAGE_ENCODE_SHARE = 0.004
# Rounding the tokens to int8 costs a third of that.
TOKENS_ENCODE_SHARE = 0.0013

# Budgets of a band in units of the full local time. "all" is 60, 100, 150 and 250 ms on a Pi 4; its 100
# lie on a knife's edge, where two of four stages just about fit. "wide" is 16, 30, 45 and 80 ms on a Pi 5.
BANDS: dict[str, tuple[float, ...]] = {
    "all": (0.305, 0.507, 0.761, 1.268),
    "wide": (0.32, 0.60, 0.90, 1.60),
    "tight": (0.305, 0.40),
    "middle": (0.507, 0.761),
    "loose": (0.95, 1.268),
}
# A frame every so often, in the same unit: longer than every budget, so that frames stand alone.
PERIOD = 1.7
# Deadlines, contention and outages that are tried beside the plain ones.
OTHER_AXES = (
    ("sine", "none", "none"),
    ("bursts", "none", "none"),
    ("cut", "none", "none"),
    ("extended", "none", "none"),
    ("tight", "none", "none"),
    ("loose", "none", "none"),
    ("all", "x1.8", "none"),
    ("all", "x3", "none"),
    ("middle", "thermal", "none"),
    ("all", "none", "each-minute"),
    ("all", "none", "black-hole"),
    ("all", "none", "gateway-dead"),
    ("all", "x1.8", "each-minute"),
)


@dataclass(frozen=True, slots=True)
class GridRow:
    """One scenario with the axes that made it, for tables."""

    scenario: Scenario
    board: str
    link: str
    deadlines: str
    contention: str
    outages: str
    fleet: Fleet | None = None
    """Devices that share gateways; None for one device with gateways that are never busy with others."""


def vit_tiny(recording: Recording, board: str, full_ms: float) -> CostProfile:
    """A network of ViT-Tiny's cost with the recorded answers: equal stages, image or tokens to send.

    The image goes as a JPEG of 15 kB and answers like the recorded lossless image, tokens like the
    cheapest recorded payload of their boundary.
    """
    stages = recording.stage_count
    options: list[OffloadOption] = []
    columns: list[int] = []
    for boundary in range(stages):
        recorded = [
            (each.quality_cost, column, each)
            for column, each in enumerate(recording.note.options)
            if each.boundary == boundary
        ]
        if not recorded:
            continue
        if boundary == 0:
            _, column, chosen = min(recorded, key=lambda entry: entry[:2])
            options.append(
                OffloadOption(0, "jpeg", IMAGE_BYTES, IMAGE_ENCODE_SHARE * full_ms, chosen.quality_cost)
            )
        else:
            column, chosen = min(
                ((column, each) for _, column, each in recorded), key=lambda entry: entry[1].payload_bytes
            )
            options.append(
                OffloadOption(
                    boundary, chosen.codec, TOKENS_BYTES, TOKENS_ENCODE_SHARE * full_ms, chosen.quality_cost
                )
            )
        columns.append(column)
    return CostProfile(
        name=f"vit-tiny on {board}",
        stage_ms=(full_ms / stages,) * stages,
        gateway_stage_ms=(GATEWAY_MS / stages,) * stages,
        options=tuple(options),
        option_columns=tuple(columns),
    )


def contention_of(name: str) -> ComputeRule:
    """A load by name. Raises: KeyError."""
    rules: dict[str, ComputeRule] = {
        "none": Unloaded(),
        "x1.8": Contended(1.8),
        "x3": Contended(3.0),
        "thermal": ThermalRamp(2.0),
    }
    return rules[name]


def deadlines_of(name: str, full_ms: float) -> DeadlineRule:
    """Deadlines by name, for a board whose full local time is `full_ms`. Raises: KeyError."""
    if name in BANDS:
        return Redrawn(tuple(round(share * full_ms, 1) for share in BANDS[name]))
    rules: dict[str, DeadlineRule] = {
        "sine": Swinging(0.3 * full_ms, 1.27 * full_ms),
        "bursts": TightBursts(1.0 * full_ms, 0.3 * full_ms),
        "cut": ChangedInFrame(1.0 * full_ms, 0.5 * full_ms),
        "extended": ChangedInFrame(0.4 * full_ms, 1.0 * full_ms),
    }
    return rules[name]


def outages_of(name: str, until_ms: float) -> tuple[Outage, ...]:
    """Outages by name over a run of this length. Raises: KeyError."""
    made: dict[str, tuple[Outage, ...]] = {
        "none": (),
        # Five seconds each minute; the connection breaks, and reconnecting takes 4 s (2 to 10 were seen).
        "each-minute": repeated(
            OutageKind.LINK,
            first_ms=20_000.0,
            length_ms=5000.0,
            every_ms=60_000.0,
            until_ms=until_ms,
            noticed_ms=0.0,
            reconnect_ms=4000.0,
        ),
        # A silent black hole of a minute, every ten minutes; the first one early. The connection is
        # given up after two keep-alives of 15 s, and is back some 5 s after the end.
        "black-hole": repeated(
            OutageKind.LINK,
            first_ms=60_000.0,
            length_ms=60_000.0,
            every_ms=600_000.0,
            until_ms=until_ms,
            noticed_ms=30_000.0,
            reconnect_ms=5000.0,
        ),
        # The broker stands, the gateway is dead for twenty seconds every two minutes.
        "gateway-dead": repeated(
            OutageKind.GATEWAY, first_ms=40_000.0, length_ms=20_000.0, every_ms=120_000.0, until_ms=until_ms
        ),
    }
    return made[name]


def grid_row(
    profile: CostProfile,
    link: Link,
    *,
    board: str,
    frames: int,
    deadlines: str = "all",
    contention: str = "none",
    outages: str = "none",
    byte_price: float = 0.0,
) -> GridRow:
    """One row of the grid. Raises: KeyError for an unknown name."""
    full_ms = sum(profile.stage_ms)
    period_ms = round(PERIOD * full_ms, 1)
    scenario = Scenario(
        name=f"{board}|{link.name}|{deadlines}|{contention}|{outages}",
        profile=profile,
        frames=frames,
        period_ms=period_ms,
        deadlines=deadlines_of(deadlines, full_ms),
        uplink=link.trace,
        delay=link.delay,
        compute=contention_of(contention),
        server=ServerModel(),
        outages=outages_of(outages, frames * period_ms),
        byte_price=byte_price,
    )
    return GridRow(scenario, board, link.name, deadlines, contention, outages)


@dataclass(frozen=True, slots=True)
class Board:
    """A network on a board, and the band of budgets that suits it."""

    name: str
    profile: CostProfile
    band: str = "all"


def standard_grid(
    boards: Sequence[Board], links: Sequence[Link], *, frames: int, full: bool = False
) -> list[GridRow]:
    """The rows of a study: every link for every board, then the other axes, going round the links.

    Without `full` the other axes are tried on the first board, on one link each; with it on all.
    """
    rows: list[GridRow] = []
    for number, board in enumerate(boards):
        axes = [(link, board.band, "none", "none") for link in links]
        for index, other in enumerate(OTHER_AXES):
            around = [links[index % len(links)]] if number == 0 else []
            axes.extend((link, *other) for link in (links if full else around))
        rows.extend(
            grid_row(
                board.profile,
                link,
                board=board.name,
                frames=frames,
                deadlines=deadlines,
                contention=contention,
                outages=outages,
            )
            for link, deadlines, contention, outages in axes
        )
    return rows
