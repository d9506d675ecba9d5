"""An exit's output in an answer: numbers as they came, equal to any sequence of the same ones."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeexit.decide.answer import Output

singles = st.floats(width=32, allow_nan=False)


@given(st.lists(singles, max_size=6), st.lists(singles, max_size=6))
def test_an_output_behaves_as_the_tuple_of_its_numbers(values: list[float], others: list[float]) -> None:
    output, plain = Output(np.array(values, np.float32)), tuple(values)
    assert output == plain
    assert plain == output
    assert (output == tuple(others)) == (plain == tuple(others))
    assert (output == Output(np.array(others, np.float32))) == (plain == tuple(others))
    assert hash(output) == hash(plain)
    assert (len(output), tuple(output), repr(output)) == (len(plain), plain, repr(plain))
    assert [output[index] for index in range(len(output))] == values
    assert output[1:] == plain[1:]
    assert output != 7
    np.testing.assert_array_equal(np.asarray(output), np.asarray(plain))
