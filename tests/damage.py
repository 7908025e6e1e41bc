"""Damage, as Hypothesis draws and shrinks it: bytes of files, and values of JSON documents."""

from typing import Any

from hypothesis import strategies as st

ODD = st.sampled_from([None, "x", -7, [], {}, True, 1e300])
"""Values of every type of JSON, one of which nearly every place of a document has no use for."""


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes, most: int = 4) -> bytes:
    """The content cut off, or with up to ``most`` stretches of it replaced or left out."""
    if draw(st.booleans()):
        return content[: draw(st.integers(0, len(content) - 1))]
    damaged = content
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(damaged)))
        damaged = damaged[:at] + draw(st.binary(max_size=1)) + damaged[at + draw(st.sampled_from([1, 20])) :]
    return damaged


@st.composite
def with_a_flipped_bit(draw: st.DrawFn, content: bytes) -> tuple[bytes, int]:
    """The content with one bit flipped, and the place of its byte."""
    at = draw(st.integers(0, len(content) - 1))
    return content[:at] + bytes([content[at] ^ (1 << draw(st.integers(0, 7)))]) + content[at + 1 :], at


@st.composite
def damaged_documents(draw: st.DrawFn, value: Any) -> Any:
    """A JSON document with one key renamed, or one value of another type, somewhere."""
    deeper = bool(value) and isinstance(value, dict | list) and draw(st.integers(0, 4)) > 0
    if deeper and isinstance(value, dict):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 3)) == 0:
            return {(f"{k}~" if k == key else k): v for k, v in value.items()}
        return {**value, key: draw(damaged_documents(value[key]))}
    if deeper:
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(damaged_documents(value[place])), *value[place + 1 :]]
    return draw(ODD)
