"""Dataclasses as JSON documents: what is written is read again, what does not fit is named by its key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.documents import UNSET, DocumentError, Unset, from_plain, to_plain


@dataclass(frozen=True)
class Point:
    x: float
    label: str | None = None


@dataclass(frozen=True)
class Drawing:
    kind: Literal["line", "cloud"]
    points: tuple[Point, ...]
    size: tuple[int, int] | Unset = UNSET
    notes: Mapping[str, Any] | Unset | None = UNSET
    titles: tuple[str, ...] | Unset = UNSET


NUMBERS = st.integers(-9, 9) | st.floats(allow_nan=False)
POINTS = st.builds(Point, NUMBERS, st.none() | st.text(max_size=3))
NOTES = st.none() | st.just(UNSET) | st.dictionaries(st.text(max_size=3), NUMBERS, max_size=2)
DRAWINGS = st.builds(
    Drawing,
    st.sampled_from(["line", "cloud"]),
    st.lists(POINTS, max_size=3).map(tuple),
    st.just(UNSET) | st.tuples(st.integers(), st.integers()),
    NOTES,
    st.just(UNSET) | st.lists(st.text(max_size=3), max_size=2).map(tuple),
)


@given(DRAWINGS)
def test_what_is_written_is_read_again_and_an_absent_key_stays_absent(drawing):
    plain = to_plain(drawing)
    assert from_plain(Drawing, plain) == drawing
    assert ("size" in plain) == (drawing.size is not UNSET)
    assert to_plain(from_plain(Drawing, plain | {"a newer key": 1})) == plain


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kind": "circle"}, "'top.kind' is not"),
        ({"points": {}}, "'top.points' is not"),
        ({"points": [{"x": 1}, {"x": True}]}, r"'top.points\[1\].x' is not"),
        ({"points": [{"label": "a"}]}, r"'top.points\[0\].x' is missing"),
        ({"size": [1]}, "'top.size' is not"),
        ({"size": None}, "'top.size' is not"),
        ({"notes": 3}, "'top.notes' is not"),
        ({"titles": [1]}, r"'top.titles\[0\]' is not"),
    ],
)
def test_what_does_not_fit_is_named(change, complaint):
    with pytest.raises(DocumentError, match=complaint):
        from_plain(Drawing, {"kind": "line", "points": [], **change}, "top")


def test_whole_numbers_stay_whole():
    assert repr(from_plain(Point, {"x": 3}).x) == "3"
