"""Numbers, names and shares as people read them, and nothing that a page could trip over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

MOST_TEXT, MOST_NAME, NAMES_SHOWN = 600, 60, 8
"""Characters of a text and of a name, and names of a list, that are shown: a
page of hostile names stays a page."""


def number(value: Any) -> str:
    """Three significant digits; words and whole numbers as they are."""
    if isinstance(value, bool) or not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    if 1000 <= abs(value) < 1e4:
        return f"{float(f'{value:.3g}'):,.0f}"
    return (
        f"{value:.3g}"
        if value == 0 or 1e-4 <= abs(value) < 1e4
        else f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
    )


def percent(share: float) -> str:
    """A share; a small one is never shown as none."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.3g} %"


def fact_words(value: Any) -> str:
    """A fact or a wish in a sentence."""
    if isinstance(value, list | tuple):
        return (
            f"{len(value)} names" if len(value) > 2 else " to ".join(number(item) for item in value) or "none"
        )
    return "not measured" if value is None else number(value)


def measured_words(measured: Mapping[str, Any]) -> str:
    """An entry of evidence.yaml in a few words."""
    return f"{measured['effect']} ({measured['interval']}) on {measured['sets']} sets"


def names_words(names: Sequence[str]) -> str:
    """A list of names, the first few in full."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(cut_middle(name, MOST_NAME) for name in names[:NAMES_SHOWN]) + more


def bounded(text: str) -> str:
    """Text of the data as a page shows it: bounded, and nothing invisible that turns a line round."""
    clean = "".join(
        c if c.isprintable() or c in "\n\u00a0" else repr(c)[1:-1] for c in cut_middle(text, MOST_TEXT)
    )
    return clean


def without_folders(text: str) -> str:
    """The own name of a file or folder where the text is its absolute path, for a page tells nothing of a
    machine; all else, such as the address of a remote file, as it is."""
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute():
            return kind(text).name or text
    return text


def cut_middle(text: str, most: int) -> str:
    """Long text cut in its middle: both ends tell names apart."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - most // 2 + 1 :]}"


def range_words(state: Mapping[str, Any]) -> str:
    """What of a parameter is still searched."""
    if "low" in state:
        return f"{'0 or ' if state.get('zero') else ''}{number(state['low'])} to {number(state['high'])}"
    return (
        "one of " + ", ".join(number(choice) for choice in state["choices"])
        if "choices" in state
        else "fixed"
    )
