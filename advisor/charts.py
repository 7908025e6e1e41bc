"""Numbers -> SVG text by matplotlib, in the page's own text colour, for light and dark and paper."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

MOST_CURVES = 8
MOST_BARS = 12
REFERENCES = ("recommendation", "library default")
"""Origins of the trials that every chart names; the others go by number."""
_INK = "#010203"
"""Drawn where the page's text colour belongs; replaced by currentColor, which follows light and dark."""
_ACCENT, _MUTED = "#3b76c4", "#9a9a9a"


def history(trials: Sequence[Mapping[str, Any]], loss: str) -> str:
    """Value of each finished trial in order, the best so far, and the recommendation and the default as lines."""
    done = [(t["number"], t["value"]) for t in trials if t["value"] is not None and t["end"] == "complete"]
    if not done:
        return ""
    figure, axes = _figure()
    numbers, values = [n for n, _ in done], [v for _, v in done]
    best = [min(values[: i + 1]) for i in range(len(values))]
    axes.scatter(numbers, values, s=14, color=_MUTED, label="trial")
    axes.step(numbers, best, where="post", color=_ACCENT, label="best so far")
    for trial in trials:
        if trial["origin"] in REFERENCES and trial["value"] is not None:
            style = "--" if trial["origin"] == "recommendation" else ":"
            axes.axhline(trial["value"], linestyle=style, linewidth=1, color=_INK, label=trial["origin"])
    ordered = sorted(values)
    # one bad trial must not press all others into a line
    axes.set_ylim(top=ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))] * 1.1 + 1e-12)
    axes.set_xlabel("trial")
    axes.set_ylabel(f"validation {loss}, lower is better")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure, "Optimisation history")


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], loss: str) -> str:
    """Learning curves: name -> (epoch, validation loss) points."""
    drawn = {name: points for name, points in list(lines.items())[:MOST_CURVES] if len(points) > 1}
    if not drawn:
        return ""
    figure, axes = _figure()
    for name, points in drawn.items():
        axes.plot([x for x, _ in points], [y for _, y in points], linewidth=1.2, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"validation {loss}")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure, "Learning curves")


def bars(values: Mapping[str, float], label: str, title: str) -> str:
    """Horizontal bars, the largest first."""
    top = sorted(values.items(), key=lambda item: -item[1])[:MOST_BARS]
    if not top:
        return ""
    figure, axes = _figure(height=0.6 + 0.28 * len(top))
    axes.barh([name for name, _ in reversed(top)], [value for _, value in reversed(top)], color=_ACCENT)
    axes.set_xlabel(label)
    return _svg(figure, title)


def _figure(height: float = 3.0) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    for item in (axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()):
        item.set_color(_INK)
    axes.tick_params(colors=_INK, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(_MUTED)
    return figure, axes


def _svg(figure: Any, title: str) -> str:
    """SVG text without anything that differs between two renderings (ids, dates) or that fetches."""
    import matplotlib

    buffer = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": "advisor", "text.parse_math": False, "text.color": _INK}
    with matplotlib.rc_context(settings):
        for legend in (a.get_legend() for a in figure.axes):
            for text in legend.get_texts() if legend else ():
                text.set_color(_INK)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    head = f'<svg role="img" aria-label="{title}"'
    return text.replace("<svg", head, 1).replace(_INK, "currentColor")
