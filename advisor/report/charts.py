"""Numbers -> SVG text by matplotlib, in the page's own text colour, for light and dark and paper."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, ParamSpec

from advisor.evaluation.judgement import CalibrationBin
from advisor.report.network import LayerView
from advisor.runs.result import RECOMMENDED, PlacedTrial

Drawn = ParamSpec("Drawn")
MOST_DEVICES = 8
MOST_BARS = 12
MOST_WORKERS, MOST_PLACED = 48, 500
"""Workers, and trials in the order in which they began, that the charts of a search
on a cluster draw: a page has 2 MB."""
REFERENCES = (RECOMMENDED, "library default")
"""Origins of the trials that every chart names; the others go by number."""
WIDTH_INCHES = 4.8
"""So that a phone shows a chart whole, with letters that can still be read."""
_INK = "#010203"
"""Drawn where the page's text colour belongs; replaced by currentColor, which follows light and dark."""
_ACCENT, _MUTED = "#3b76c4", "#9a9a9a"


def _in_plain_style(draw: Callable[Drawn, str]) -> Callable[Drawn, str]:
    """Draws by matplotlib's own defaults: what a program has set for its figures changes no page."""

    @wraps(draw)
    def drawn(*arguments: Drawn.args, **named: Drawn.kwargs) -> str:
        keep_out_of_the_home()
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            return draw(*arguments, **named)

    return drawn


@_in_plain_style
def packing(rows: Sequence[PlacedTrial], pruned: Container[int] = ()) -> str:
    """Which worker ran which trial when, a row for each worker, those of one
    device together; pruned trials in grey."""
    drawn = _first(rows)
    places = sorted({(row.device, row.worker) for row in drawn})[:MOST_WORKERS]
    if not places:
        return ""
    figure, axes = _figure(height=0.9 + 0.2 * len(places))
    for row in drawn:
        if (row.device, row.worker) in places:
            colour = _MUTED if row.number in pruned else _ACCENT
            at, long = places.index((row.device, row.worker)), row.ended - row.began
            axes.barh(at, long, left=row.began, height=0.7, color=colour, edgecolor="none")
            axes.plot([row.ended] * 2, [at - 0.35, at + 0.35], linewidth=0.6, color=_INK)
    axes.set_yticks(range(len(places)), [f"{worker}, {device}" for device, worker in places])
    axes.invert_yaxis()
    axes.set_xlabel(
        "seconds (grey: pruned)" + (f"; the first {MOST_PLACED} trials" if len(rows) > MOST_PLACED else "")
    )
    return _svg(figure, "Which worker ran which trial")


@_in_plain_style
def memory_chart(rows: Sequence[PlacedTrial]) -> str:
    """The memory of the trials on each GPU over time, in GB: as it was expected when
    they were packed, and as it was used."""
    drawn = _first(rows)
    devices = sorted({row.device for row in drawn if "gpu" in row.device})[:MOST_DEVICES]
    if not devices:
        return ""
    figure, axes = _figure()
    for number, device in enumerate(devices):
        own = [row for row in drawn if row.device == device]
        for name, style in (("expected", "-"), ("used", ":")):
            taken = [(row, (row.memory if name == "expected" else row.peak_memory) or 0) for row in own]
            steps = [(row.began, bytes_) for row, bytes_ in taken]
            steps += [(row.ended, -bytes_) for row, bytes_ in taken]
            total, points = 0.0, [(0.0, 0.0)]
            for at, change in sorted(steps):
                total += change
                points.append((at, total / 1e9))
            label = f"{device}, {name}"
            axes.step(
                *zip(*points, strict=True),
                where="post",
                linestyle=style,
                linewidth=1.2,
                color=f"C{number}",
                label=label,
            )
    axes.set_xlabel("seconds")
    axes.set_ylabel("GB in trials")
    _legend(figure)
    return _svg(figure, "Memory of the GPUs")


def _first(rows: Sequence[PlacedTrial]) -> list[PlacedTrial]:
    return sorted(rows, key=lambda row: (row.began, row.number))[:MOST_PLACED]


@_in_plain_style
def bars(values: Mapping[str, float], label: str, title: str) -> str:
    """Horizontal bars, the largest first."""
    top = sorted(values.items(), key=lambda item: -item[1])[:MOST_BARS]
    if not top:
        return ""
    figure, axes = _figure(height=0.6 + 0.28 * len(top))
    axes.barh([name for name, _ in reversed(top)], [value for _, value in reversed(top)], color=_ACCENT)
    axes.set_xlabel(label)
    return _svg(figure, title)


@_in_plain_style
def difference_chart(rows: Sequence[tuple[str, float, float]], loss: str, reach: float) -> str:
    """Paired differences with their intervals about zero;
    rows: name, mean, standard error.
    reach: in standard errors."""
    if not rows:
        return ""
    figure, axes = _figure(height=1.1 + 0.32 * len(rows))
    names = [name for name, _, _ in reversed(rows)]
    means, errors = [mean for _, mean, _ in reversed(rows)], [reach * error for _, _, error in reversed(rows)]
    axes.axvline(0, color=_MUTED, linewidth=1)
    axes.errorbar(means, range(len(rows)), xerr=errors, fmt="o", markersize=5, capsize=3, color=_ACCENT)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"difference in {loss}; left of zero is better")
    return _svg(figure, "Paired differences with intervals")


@_in_plain_style
def reliability(bins: Sequence[CalibrationBin]) -> str:
    """How often predictions were right against the probability that they were
    given; the area says how many rows."""
    if not bins:
        return ""
    figure, axes = _figure()
    most = max(b.rows for b in bins)
    axes.plot(
        [0, 1], [0, 1], linestyle="--", linewidth=1, color=_MUTED, label="perfectly calibrated"
    )
    sizes = [12 + 140 * b.rows / most for b in bins]
    axes.scatter([b.probability for b in bins], [b.right for b in bins], s=sizes, color=_ACCENT, alpha=0.8)
    axes.plot([b.probability for b in bins], [b.right for b in bins], linewidth=1, color=_ACCENT)
    axes.set(xlim=(min(b.probability for b in bins) - 0.05, 1.02), ylim=(-0.03, 1.05))
    axes.set_xlabel("probability of the predicted class")
    axes.set_ylabel("share that is correct")
    _legend(figure)
    return _svg(figure, "Calibration")


@_in_plain_style
def histogram(low: float, high: float, counts: Sequence[int], label: str, title: str) -> str:
    """Bars of equal width from low to high."""
    width = (high - low) / len(counts)
    figure, axes = _figure(height=2.2)
    axes.bar([low + (i + 0.5) * width for i in range(len(counts))], counts, width=0.92 * width, color=_ACCENT)
    axes.set_xlabel(label)
    axes.set_ylabel("rows")
    return _svg(figure, title)


@_in_plain_style
def fields(rows: Sequence[LayerView], needed: float | None, length: int) -> str:
    """The receptive field of each layer as a bar, with the input and what the
    task is likely to need as lines."""
    if not rows:
        return ""
    figure, axes = _figure(height=0.9 + 0.2 * len(rows))
    names = [row.name for row in rows]
    reach = [length if row.whole else min(row.field, length) for row in rows]
    colours = [_MUTED if row.whole else _ACCENT for row in rows]
    axes.barh(range(len(rows)), reach, color=colours, height=0.7)
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.axvline(length, color=_INK, linewidth=1, label="the whole input")
    if needed:
        axes.axvline(min(needed, length), color=_INK, linestyle="--", linewidth=1, label="likely needed")
    axes.set_xlabel("points of the input that one unit sees (grey: all of them)")
    _legend(figure)
    return _svg(figure, "Receptive field of each layer")


def lines(series: Sequence[Sequence[float | None]]) -> str:
    """A series as small as a picture, a line for each channel; drawn by hand,
    for there are dozens of them."""
    there = [point for channel in series for point in channel if point is not None] or [0.0]
    low, width, height, spread = min(there), 120, 48, max(there) - min(there) or 1.0
    paths = []
    for channel in series:
        step, pen, path = width / max(1, len(channel) - 1), "M", ""
        for position, point in enumerate(channel):
            if point is None:
                pen = "M"
                continue
            path += f"{pen}{position * step:.4g} {height - 2 - (height - 4) * (point - low) / spread:.3g}"
            pen = "L"
        paths.append(f'<path d="{path}"/>')
    head = f'<svg class="lines" viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">'
    return f"{head}{''.join(paths)}</svg>"


def spark(counts: Sequence[float]) -> str:
    """A distribution as large as a word; drawn by hand, for there are hundreds of them."""
    most = max(counts, default=0)
    if not most:
        return ""
    width = 100 / len(counts)
    tops = [(i * width, 24 - 23 * count / most) for i, count in enumerate(counts) if count]
    bars_ = "".join(f"M{left:.4g} 24V{top:.3g}H{left + 0.85 * width:.4g}V24Z" for left, top in tops)
    return (
        f'<svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true"><path '
        f'd="{bars_}"/></svg>'
    )


def _figure(height: float = 2.6) -> tuple[Any, Any]:
    keep_out_of_the_home()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    for item in (axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()):
        item.set_color(_INK)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(8.5)
    axes.tick_params(colors=_INK, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(_MUTED)
    return figure, axes


def _legend(figure: Any) -> None:
    """What marks mean, above the chart and never on it."""
    figure.legend(frameon=False, fontsize=8, loc="outside upper left", ncols=2, labelcolor=_INK)


@lru_cache
def keep_out_of_the_home() -> tempfile.TemporaryDirectory[str] | None:
    """matplotlib keeps a list of fonts in the home, unless it is told of another
    place: ours goes with the process."""
    if "MPLCONFIGDIR" in os.environ or (Path.home() / ".cache" / "matplotlib").is_dir():
        return None
    place = tempfile.TemporaryDirectory(prefix="advisor-matplotlib-")
    os.environ["MPLCONFIGDIR"] = place.name
    return place


def _svg(figure: Any, title: str) -> str:
    """SVG text without anything that differs between two renderings (ids, dates) or that fetches."""
    import matplotlib

    buffer = io.StringIO()
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "advisor",
        "text.parse_math": False,
        "text.color": _INK,
    }
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", text, count=1)
    text = re.sub(r' id="legend_\d+"', ' class="legend"', text)
    text = re.sub(r' id="(?:[a-z]\w*|matplotlib\.\w+)_\d+"', "", text)  # another chart has the same ones
    head = f'<svg role="img" aria-label="{title}"'
    text = text.replace(_ACCENT, f"var(--accent, {_ACCENT})")
    return text.replace("<svg", head, 1).replace(_INK, "currentColor")
