"""Charts that answer to the pointer: SVG by hand, ticks by matplotlib.

What a mark says when it is pointed at stands in its ``data-tip``; ``data-trial`` joins the marks of a trial
with its row in the table. Without the script all is still there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from advisor.report.charts import REFERENCES, keep_out_of_the_home
from advisor.report.wording import bounded

WIDTH, HEIGHT, WIDE = 480, 260, 640
"""Of a drawing; a phone shows the first whole, with letters that can still be read. WIDE: of many axes."""
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 42
"""Margins: tick labels stand on the left and below."""
TICKS = 5
MOST_LINES = 300
"""Trials that are drawn as lines or points: a page has 2 MB."""
MOST_AXES = 8
"""Parameters that are drawn beside each other."""
MOST_CURVES = 6
"""Learning curves in one chart: as many as there are colours that can be told apart."""
FEW_DECADES = 2
"""Below this many powers of ten a logarithmic axis has ticks at 1, 2 and 5."""
LOG_RATIO = 10
"""Losses that differ by more than this factor are drawn on a logarithmic axis."""
NAMES_WIDE = 165
"""Of the names of columns beside bars."""
ENDS_SHOWN = 10
"""Characters of a value at the end of an axis: as wide as two axes are apart."""
LETTER, LINE = 7.2, 17
"""Width of a letter and height of a line of a legend, in units of the drawing: a little more than needed."""


@dataclass(frozen=True)
class Axis:
    """What an axis spans. log: by factors of ten; integer: ticks at whole numbers alone."""

    low: float
    high: float
    label: str
    log: bool = False
    integer: bool = False

    @staticmethod
    def of(values: Sequence[float], label: str, *, log: bool = False, integer: bool = False) -> Axis:
        """Spans the finite values with a little air on both sides."""
        there = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
        low, high = min(there, default=0.1 if log else 0.0), max(there, default=1.0)
        if log:
            return Axis(low / 1.15, high * 1.15, label, log=True)
        air = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
        return Axis(low - air, high + air, label, integer=integer)

    def share(self, value: float) -> float:
        """How far along the axis a value lies, 0 to 1."""
        if self.log:
            value = max(value, self.low)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values within the axis."""
        keep_out_of_the_home()
        from matplotlib.ticker import LogLocator, MaxNLocator

        decades = math.log10(self.high / self.low) if self.log else 0.0
        subs = (1.0, 2.0, 5.0) if decades < FEW_DECADES else (1.0, 3.0) if decades < TICKS else (1.0,)
        locator = LogLocator(subs=subs) if self.log else MaxNLocator(TICKS, integer=self.integer)
        return [float(t) for t in locator.tick_values(self.low, self.high) if self.low <= t <= self.high]


@dataclass(frozen=True)
class Legend:
    """What marks mean, above the chart and never on it.

    entries: (kind of mark, words); kind: the classes of a line, or of a circle where they begin with ``dot``.
    """

    entries: Sequence[tuple[str, str]]
    width: int = WIDTH

    @property
    def places(self) -> list[tuple[float, int]]:
        """Where each entry stands: x, and the number of its line."""
        found, x, line = [], float(LEFT), 0
        for _, words in self.entries:
            wide = 26 + LETTER * len(words) + 14
            if x > LEFT and x + wide > self.width:
                x, line = float(LEFT), line + 1
            found.append((x, line))
            x += wide
        return found

    @property
    def height(self) -> int:
        """Of all its lines."""
        return LINE * (1 + self.places[-1][1]) + 4 if self.entries else 0

    @property
    def drawn(self) -> str:
        """The entries, drawn."""
        drawn = []
        for (kind, words), (x, line) in zip(self.entries, self.places, strict=True):
            y = 10 + LINE * line
            mark = (
                f'<circle class="{kind}" cx="{x + 10:.1f}" cy="{y}" r="4"/>'
                if kind.startswith("dot")
                else f'<path class="{kind}" d="M{x:.1f} {y}h20"/>'
            )
            drawn.append(f'{mark}<text x="{x + 26:.1f}" y="{y + 4}">{_text(words)}</text>')
        return f'<g class="legend">{"".join(drawn)}</g>'


@dataclass(frozen=True)
class Frame:
    """A chart's area with its two axes. top, right: margins, where something is written there."""

    x: Axis
    y: Axis
    width: int = WIDTH
    height: int = HEIGHT
    top: int = TOP
    right: int = RIGHT

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the drawing."""
        across, up = self.width - LEFT - self.right, self.height - self.top - BOTTOM
        height = min(1.0, max(0.0, self.y.share(y)))
        return LEFT + across * self.x.share(x), self.height - BOTTOM - up * height

    @property
    def upright(self) -> int:
        """Characters that fit beside the chart."""
        return int((self.height - 8) / LETTER)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        """The data of a line through points."""
        return "M" + "L".join("{:.1f} {:.1f}".format(*self.at(x, y)) for x, y in points)

    def drawn(self, title: str, marks: Sequence[str]) -> str:
        """The chart: axes, grid and marks."""
        lines = []
        for tick in self.y.ticks():
            _, y = self.at(self.x.low, tick)
            lines.append(
                f'<path class="grid" d="M{LEFT} {y:.1f}H{self.width - self.right}"/>'
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
            )
        for tick in self.x.ticks():
            x, _ = self.at(tick, self.y.low)
            lines.append(
                f'<path class="grid" d="M{x:.1f} {self.top}V{self.height - BOTTOM}"/>'
                f'<text x="{x:.1f}" y="{self.height - BOTTOM + 16}" text-anchor="middle">'
                f"{_number(tick)}</text>"
            )
        middle = (LEFT + self.width - self.right) / 2
        down = (self.top + self.height - BOTTOM) / 2
        labels = (
            f'<text x="{middle}" y="{self.height - 6}" text-anchor="middle">{_text(self.x.label)}</text>'
            f'<text transform="translate(13 {down}) rotate(-90)" text-anchor="middle">'
            f"{_text(_short(self.y.label, self.upright))}</text>"
        )
        return _svg(title, self.width, self.height, [*lines, labels, *marks])


@dataclass(frozen=True)
class DrawnTrial:
    """A trial as charts need it. value: None where it has no loss; values: those of its parameters."""

    number: int
    origin: str
    end: str
    value: float | None
    values: Mapping[str, float | str | bool | None]

    @property
    def is_reference(self) -> bool:
        """Whether everything is compared with it."""
        return self.origin in REFERENCES

    @property
    def tip(self) -> str:
        """What is said when it is pointed at."""
        loss = "no loss" if self.value is None else _number(self.value)
        name = f" ({self.origin})" if self.is_reference else ""
        return f"trial {self.number}{name}: {loss}, {self.end}"


def history_plot(trials: Sequence[DrawnTrial], loss: str) -> str:
    """The value of each trial in the order of their numbers, the best so far, and those that everything is
    compared with as lines; "" where no trial has a value."""
    there = [trial for trial in trials if trial.value is not None and math.isfinite(trial.value)][:MOST_LINES]
    done = [trial for trial in there if trial.end == "complete"]
    if not done:
        return ""
    ordered = sorted(float(trial.value or 0) for trial in done)
    # one bad trial must not press all others into a line
    top = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    y = Axis.of([ordered[0], top + 0.1 * (top - ordered[0])], f"validation {loss}, lower is better")
    x = Axis(-0.5, max(trial.number for trial in there) + 0.5, "trial", integer=True)
    legend = Legend([("best", "best so far"), ("dot", "trained to its end"), ("dot open", "stopped early")])
    references = [trial for trial in done if trial.is_reference]
    right = max([RIGHT, *(int(LETTER * len(trial.origin)) + 8 for trial in references)])
    frame = Frame(x, y, height=HEIGHT + legend.height, top=TOP + legend.height, right=right)
    marks, best, steps = [legend.drawn, *_reference_lines(frame, references)], math.inf, []
    for trial in done:
        lower = min(best, float(trial.value or 0))
        steps += [(trial.number, best if math.isfinite(best) else lower), (trial.number, lower)]
        best = lower
    marks.append(f'<path class="best" d="{frame.path([*steps, (x.high, best)])}"/>')
    for trial in there:
        across, down = frame.at(trial.number, float(trial.value or 0))
        kind = "dot" if trial.end == "complete" else "dot open"
        marks.append(_dot(across, down, kind, trial.tip, trial.number))
    return frame.drawn("Optimization history", marks)


def _reference_lines(frame: Frame, trials: Sequence[DrawnTrial]) -> list[str]:
    """A line across for each trial, its name beside the chart; names do not touch each other."""
    end, marks, least = frame.width - frame.right, [], 0.0
    for at, origin in sorted((frame.at(0, float(trial.value or 0))[1], trial.origin) for trial in trials):
        beside = max(at + 4, least)
        least = beside + LINE - 3
        marks.append(
            f'<path class="reference" d="M{LEFT} {at:.1f}H{end}"/>'
            f'<text class="small" x="{end + 5}" y="{beside:.1f}">{_text(origin)}</text>'
        )
    return marks


@dataclass(frozen=True)
class DrawnCurve:
    """The losses of a training: (epoch, loss). training: empty where it was not kept."""

    name: str
    validation: Sequence[tuple[float, float]]
    training: Sequence[tuple[float, float]] = ()


def curves_plot(curves: Sequence[DrawnCurve], loss: str, title: str = "Learning curves") -> str:
    """Learning curves, validation as a line and training dashed; "" where none has two epochs."""
    drawn = [one for one in curves if len(one.validation) > 1][:MOST_CURVES]
    if not drawn:
        return ""
    points = [point for one in drawn for point in (*one.validation, *one.training)]
    least = min((value for one in drawn for _, value in one.validation), default=0.0)
    # a training loss that falls to nothing must not press all others into a line
    losses = [max(value, least / LOG_RATIO) for _, value in points if math.isfinite(value)]
    log = min(losses, default=0.0) > 0 and max(losses) > LOG_RATIO * min(losses)
    entries = [(f"best c{number}", one.name) for number, one in enumerate(drawn)]
    if any(one.training for one in drawn):
        entries += [("curve", "validation loss"), ("curve training", "training loss")]
    legend = Legend(entries)
    x = Axis(1, max(2.0, *(epoch for epoch, _ in points)), "epoch", integer=True)
    y = Axis.of(losses, loss if len(entries) > len(drawn) else f"validation {loss}", log=log)
    frame = Frame(x, y, height=HEIGHT + legend.height, top=TOP + legend.height)
    marks = [legend.drawn]
    for number, one in enumerate(drawn):
        for kind, line in (("training", one.training), ("validation", one.validation)):
            there = [(epoch, value) for epoch, value in line if math.isfinite(value)]
            if len(there) > 1:
                dashed = " training" if kind == "training" else ""
                tip = f"{one.name}, {kind}: {_number(there[-1][1])} after epoch {there[-1][0]:.0f}"
                marks.append(
                    f'<path class="best c{number}{dashed}" d="{frame.path(there)}" data-tip="{_text(tip)}"/>'
                )
    return frame.drawn(title, marks)


def parallel_plot(trials: Sequence[DrawnTrial], parameters: Sequence[str], loss: str) -> str:
    """Each complete trial as a line over its parameters' values to its loss; the best tenth stands out.
    "" with fewer than three trials or without a parameter that varies."""
    done = [trial for trial in trials if trial.end == "complete" and trial.value is not None]
    done = sorted(done, key=lambda trial: -(trial.value or 0))[-MOST_LINES:]
    scales = {name: _Scale.of([trial.values.get(name) for trial in done]) for name in parameters}
    names = [name for name in parameters if len(scales[name].places) > 1][:MOST_AXES]
    if len(done) < 3 or not names:
        return ""
    losses = sorted(float(trial.value or 0) for trial in done)
    most = losses[int(0.9 * (len(losses) - 1))]
    scales["loss"] = _Scale.of([min(value, most) for value in losses])
    height, gap = HEIGHT + 40, (WIDE - 2 * LEFT) / len(names)
    marks = []
    for rank, trial in enumerate(done):
        shown = {**trial.values, "loss": min(float(trial.value or 0), most)}
        at = enumerate([*names, "loss"])
        points = [(LEFT + i * gap, scales[name].share(shown.get(name))) for i, name in at]
        path = "M" + "L".join(f"{x:.1f} {height - 50 - (height - 90) * up:.1f}" for x, up in points)
        kind = "line top" if rank >= min(0.9 * len(done), len(done) - 1) else "line"
        marks.append(
            f'<path class="{kind}" d="{path}" data-tip="{_text(trial.tip)}" data-trial="{trial.number}"/>'
        )
    for i, name in enumerate([*names, "loss"]):
        x, label = LEFT + i * gap, f"{loss} (at most the worst tenth)" if name == "loss" else name
        low, high = (_short(end, ENDS_SHOWN) for end in scales[name].ends)
        below = _short(loss if name == "loss" else name, 2 * ENDS_SHOWN)
        marks.append(
            f'<path class="axis" d="M{x:.1f} 40V{height - 50}"/>'
            f'<text class="small" x="{x:.1f}" y="32" text-anchor="middle">{_text(high)}</text>'
            f'<text class="small" x="{x:.1f}" y="{height - 36}" text-anchor="middle">{_text(low)}</text>'
            f'<text class="small" x="{x:.1f}" y="{height - 20 + 12 * (i % 2)}" text-anchor="middle">'
            f"{_text(below)}<title>{_text(label)}</title></text>"
        )
    return _svg("Parameters and loss of each trial", WIDE, height, marks)


def slice_plots(trials: Sequence[DrawnTrial], parameters: Sequence[str], loss: str) -> list[tuple[str, str]]:
    """(parameter, its values against the loss) for the numbers among the parameters that vary."""
    found = []
    done = [t for t in trials if t.end == "complete" and t.value is not None][:MOST_LINES]
    losses = sorted(float(t.value or 0) for t in done)
    for name in parameters:
        pairs = [
            (float(value), t)
            for t in done
            if isinstance(value := t.values.get(name), int | float) and not isinstance(value, bool)
        ]
        if len({value for value, _ in pairs}) < 3:
            continue
        values = [value for value, _ in pairs]
        log = min(values) > 0 and max(values) / min(values) > 30
        whole = all(value == int(value) for value in values)
        x = Axis.of(values, name, log=log, integer=whole)
        y = Axis.of([losses[0], losses[int(0.9 * (len(losses) - 1))]], loss)
        frame = Frame(x, y, width=310, height=190)
        marks = [
            _dot(*frame.at(value, float(t.value or 0)), "dot", f"{t.tip}; {name} {_number(value)}", t.number)
            for value, t in pairs
        ]
        found.append((name, frame.drawn(f"{name} and loss", marks)))
    return found[:MOST_AXES]


def curve_plot(
    points: Sequence[Sequence[float]],
    at: tuple[float, float] | None,
    labels: tuple[str, str, str],
    chance: float | None,
) -> str:
    """A ROC or precision-recall curve with the decision in use as a point.

    labels: title, x, y; chance: the height of the precision of a coin, None draws the diagonal.
    """
    frame = Frame(Axis(0, 1, labels[1]), Axis(0, 1.02, labels[2]), width=310, height=260)
    coin = [(0.0, 0.0), (1.0, 1.0)] if chance is None else [(0.0, chance), (1.0, chance)]
    marks = [
        f'<path class="reference" d="{frame.path(coin)}"/>',
        f'<path class="best" d="{frame.path([(x, y) for x, y in points])}"/>',
    ]
    if at is not None:
        tip = f"in use: {labels[1]} {at[0]:.2f}, {labels[2]} {at[1]:.2f}"
        marks.append(_dot(*frame.at(*at), "dot strong", tip, None))
    return frame.drawn(labels[0], marks)


def pairs_plot(pairs: Sequence[Sequence[float]], target: str) -> str:
    """Predicted against true values, with the diagonal on which they agree."""
    if not pairs:
        return ""
    both = [value for pair in pairs for value in pair]
    axis = Axis.of(both, f"{target}, true")
    frame = Frame(axis, Axis(axis.low, axis.high, "predicted"), width=420, height=360)
    marks = [f'<path class="reference" d="{frame.path([(axis.low, axis.low), (axis.high, axis.high)])}"/>']
    for true, predicted in pairs:
        tip = f"true {_number(true)}, predicted {_number(predicted)}"
        marks.append(_dot(*frame.at(true, predicted), "dot", tip, None))
    return frame.drawn("Predicted against true", marks)


def importance_plot(rows: Sequence[tuple[str, float, float, float]], loss: str) -> str:
    """Bars with 90 % intervals; rows: name, mean, low, high, in the order that they are drawn in."""
    if not rows:
        return ""
    height, wide = 24 * len(rows) + 50, NAMES_WIDE
    axis = Axis.of([0.0, *(value for row in rows for value in row[1:])], f"rise of {loss} when shuffled")
    across = WIDTH - wide - RIGHT

    def x(value: float) -> float:
        return wide + across * axis.share(value)

    marks = [
        f'<path class="grid" d="M{x(t):.1f} 6V{height - 40}"/>'
        f'<text x="{x(t):.1f}" y="{height - 24}" text-anchor="middle">{_number(t)}</text>'
        for t in axis.ticks()
    ]
    for i, (name, mean, low, high) in enumerate(rows):
        y, tip = 12 + 24 * i, f"{name}: {_number(mean)} ({_number(low)} to {_number(high)})"
        left, right = sorted((x(0.0), x(mean)))
        short = _short(name, int(NAMES_WIDE / LETTER))
        marks.append(
            f'<g data-tip="{_text(tip)}"><text x="{wide - 8}" y="{y + 9}" text-anchor="end">'
            f"{_text(short)}</text>"
            f'<rect class="bar-mark" x="{left:.1f}" y="{y}" width="{max(1, right - left):.1f}" height="12"/>'
            f'<path class="whisker" d="M{x(low):.1f} {y + 6}H{x(high):.1f}"/></g>'
        )
    middle = (wide + WIDTH) / 2
    label = f'<text x="{middle}" y="{height - 6}" text-anchor="middle">{_text(axis.label)}</text>'
    return _svg("Permutation importance", WIDTH, height, [*marks, label])


def dependence_plot(
    name: str, at: Sequence[float | str], predicted: Mapping[str, Sequence[float]], target: str
) -> str:
    """Partial dependence: a line for each class, or one; categories stand at equal distances."""
    if len(at) < 2:
        return ""
    numbers = all(isinstance(value, int | float) for value in at)
    places = [float(value) for value in at] if numbers else [float(i) for i in range(len(at))]
    one_class = len(predicted) == 1 and "" not in predicted
    label = f"probability of {next(iter(predicted))}" if one_class else target
    values = [value for line in predicted.values() for value in line]
    x = Axis.of(places, name) if numbers else Axis(-0.5, len(at) - 0.5, name, integer=True)
    frame, marks = Frame(x, Axis.of(values, label), width=310, height=210), []
    for number, (which, line) in enumerate(predicted.items()):
        points = list(zip(places, line, strict=True))
        if numbers:
            marks.append(f'<path class="best c{number % 6}" d="{frame.path(points)}"/>')
        for value, (place, mean) in zip(at, points, strict=True):
            shown = _number(value) if isinstance(value, int | float) else value
            tip = f"{name} {shown}: {which + ' ' if which else ''}{_number(mean)}"
            marks.append(_dot(*frame.at(place, mean), f"dot c{number % 6}", tip, None))
    if numbers:
        return frame.drawn(f"Partial dependence on {name}", marks)
    drawn = Frame(Axis(x.low, x.high, name), frame.y, width=310, height=210)
    return _named_ticks(drawn, [str(value) for value in at], marks, f"Partial dependence on {name}")


def heat_overlay(heat: Sequence[Sequence[float]]) -> str:
    """Squares over a picture, the stronger the more it is looked at there; "" where nothing is."""
    most = max((value for row in heat for value in row), default=0.0)
    if most <= 0:
        return ""
    rows, columns = len(heat), len(heat[0])
    squares = "".join(
        f'<rect x="{x}" y="{y}" width="1" height="1" fill-opacity="{0.75 * value / most:.2f}"/>'
        for y, row in enumerate(heat)
        for x, value in enumerate(row)
        if value > 0.15 * most
    )
    return (
        f'<svg class="heat" viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" aria-hidden="true">'
        f"{squares}</svg>"
    )


@dataclass(frozen=True)
class _Scale:
    """Where the values of a parameter lie on its axis: value -> 0 to 1. ends: what stands below and above."""

    places: Mapping[float | str | bool | None, float]
    ends: tuple[str, str]

    @staticmethod
    def of(values: Sequence[float | str | bool | None]) -> _Scale:
        there = [v for v in values if v is not None]
        numbers = [float(v) for v in there if isinstance(v, int | float) and not isinstance(v, bool)]
        if numbers and len(numbers) == len(there):
            axis = Axis.of(numbers, "", log=min(numbers) > 0 and max(numbers) / min(numbers) > 30)
            ends = _number(min(numbers)), _number(max(numbers))
            return _Scale({v: axis.share(float(v)) for v in there if not isinstance(v, str)}, ends)
        words = sorted({str(v) for v in there})
        step = max(1, len(words) - 1)
        ends = (words[0], words[-1]) if words else ("", "")
        return _Scale({word: i / step for i, word in enumerate(words)}, ends)

    def share(self, value: float | str | bool | None) -> float:
        """0.5 for a value that is not known."""
        return self.places.get(value, self.places.get(str(value), 0.5))


def _named_ticks(frame: Frame, names: Sequence[str], marks: Sequence[str], title: str) -> str:
    """A frame whose x axis has names in place of numbers."""
    labels = []
    for i, name in enumerate(names):
        x, y = frame.at(i, frame.y.low)
        short = _short(name, 10)
        labels.append(
            f'<text class="small" x="{x:.1f}" y="{y + 12:.1f}" text-anchor="end" '
            f'transform="rotate(-30 {x:.1f} {y + 12:.1f})">{_text(short)}</text>'
        )
    grid = []
    for tick in frame.y.ticks():
        _, y = frame.at(frame.x.low, tick)
        grid.append(
            f'<path class="grid" d="M{LEFT} {y:.1f}H{frame.width - RIGHT}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
        )
    down = (TOP + frame.height - BOTTOM) / 2
    label = (
        f'<text transform="translate(13 {down}) rotate(-90)" text-anchor="middle">'
        f"{_text(_short(frame.y.label, frame.upright))}</text>"
    )
    return _svg(title, frame.width, frame.height, [*grid, *labels, label, *marks])


def _dot(x: float, y: float, kind: str, tip: str, trial: int | None) -> str:
    joined = "" if trial is None else f' data-trial="{trial}"'
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4" data-tip="{_text(tip)}"{joined}/>'


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"


def _text(words: str) -> str:
    """Text of the data in a drawing: no markup, bounded, nothing invisible."""
    return escape(bounded(words))


def _number(value: float) -> str:
    """As few digits as tell it apart."""
    text = f"{value:.3g}"
    return f"{float(text):g}" if "e" in text and abs(value) >= 1e-3 and abs(value) < 1e6 else text


def _svg(title: str, width: int, height: int, marks: Sequence[str]) -> str:
    inner = "".join(marks)
    return (
        f'<svg class="plot" role="img" aria-label="{_text(title)}" viewBox="0 0 {width} {height}" '
        f'style="max-width:{width}px">{inner}</svg>'
    )
