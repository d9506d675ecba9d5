from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeexit.replay.labels import Label, heights_apart

LINE = 11
WHOLE = st.integers(0, 60)
LABELS = st.lists(st.builds(Label, left=WHOLE, wanted=WHOLE, width=st.integers(1, 80)), max_size=25)


@given(LABELS)
def test_no_label_is_written_over_another(labels: list[Label]) -> None:
    heights = heights_apart(labels, line=LINE)
    for first in range(len(labels)):
        for second in range(first):
            one, other = labels[first], labels[second]
            apart = one.left >= other.left + other.width or other.left >= one.left + one.width
            assert apart or abs(heights[first] - heights[second]) >= LINE


def test_labels_with_room_stand_where_they_want_and_others_no_lower_than_needed() -> None:
    crowded = Label(0, 50, 30)
    assert heights_apart([crowded, Label(40, 50, 30)], line=LINE) == [50, 50]
    assert heights_apart([crowded, crowded, crowded], line=LINE) == [50, 39, 28]
    assert heights_apart([], line=LINE) == []
