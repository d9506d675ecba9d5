from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.bundle.manifest import BoundaryCodec
from edgeexit.convert.progress import StepTime
from edgeexit.convert.report import (
    REPORT_SCHEMA,
    ConversionReport,
    StageRow,
    VariantRow,
    decode_report,
    encode_report,
    header,
    render,
    rows,
)

VARIANT = VariantRow(
    name="f32",
    size_bytes=1_234_567,
    exit_max_abs=1e-6,
    tensor_max_abs=2e-6,
    agreement=1.0,
    accuracy_calibration=0.75,
    accuracy_test=0.5,
    temperature=1.25,
    ece_before=0.1,
    ece_after=0.02,
)
REPORT = ConversionReport(
    schema=REPORT_SCHEMA,
    key="k",
    name="net",
    version="1.0.0",
    task="classification",
    digest="d" * 64,
    tools=("torch 2",),
    calibration_samples=100,
    test_samples=50,
    stages=(
        StageRow(
            stage=0,
            parameters=1234,
            macs=5_600_000,
            boundary_bytes=784,
            codecs=(BoundaryCodec(codec="u8", payload_bytes=900, quality_cost=0.0),),
            variants=(VARIANT, replace(VARIANT, name="int8", size_bytes=999, agreement=0.98)),
        ),
    ),
    times=(StepTime("lower", 2.0),),
)


def test_a_report_survives_being_stored() -> None:
    assert decode_report(encode_report(REPORT)) == REPORT


@given(st.binary(max_size=200))
def test_bytes_that_are_no_report_are_none(data: bytes) -> None:
    assert decode_report(data) is None


def test_a_report_of_another_schema_is_none() -> None:
    assert decode_report(encode_report(replace(REPORT, schema=REPORT_SCHEMA + 1))) is None


def test_the_table_has_a_cell_for_every_column() -> None:
    assert all(len(row) == len(header(REPORT)) for row in rows(REPORT))


@pytest.mark.parametrize(
    "cell", ["1,234", "5.6 M", "784 B", "1.23 MB", "999 B", "2.0e-06", "0.5000", "0.9800", "u8 900 B"]
)
def test_the_table_shows(cell: str) -> None:
    assert cell in render(REPORT)


def test_without_a_test_set_the_table_shows_the_calibration_set() -> None:
    stage = replace(REPORT.stages[0], variants=(replace(VARIANT, accuracy_test=None),))
    text = render(replace(REPORT, stages=(stage,), test_samples=0))
    assert "0.7500" in text
    assert "calibration, 100 samples" in text
