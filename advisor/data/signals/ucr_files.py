"""The files of the UCR/UEA archive of time series: ``.ts`` (sktime, aeon), ``.arff`` (Weka) and plain text.

In ``NAME_TRAIN.tsv`` or ``.txt`` each line is a label and the points of one series, without a header.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advisor.data.options import FileForm
from advisor.data.signals.rows import regular
from advisor.data.sources.text_files import unicode_text
from advisor.errors import UserError, shown
from advisor.machine import available_memory

SUFFIXES = (".ts", ".arff", ".tsv", ".txt")
"""In the order of what they can say."""
LEAST_CELLS = 4
"""A text file of fewer numbers in its first line than a label and three points is none of the archive's."""
HEAD_BYTES = 1 << 20
MOST_LABEL = 200
ArchiveSeries = NDArray[np.float32]


@dataclass
class Archived:
    """One file.
    series: per row (channels, length), NaN for missing;
    labels: per row, "" for none;
    times: per row the text of its points' times (the first channel's), none where the file has none.
    target: its name.

    classes: the labels that the header declares, () for numbers or where none are declared;
    labelled: False for a file whose rows have no target.
    """

    target: str
    classes: tuple[str, ...] = ()
    regression: bool = False
    labelled: bool = False
    series: list[ArchiveSeries] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    times: list[list[str]] = field(default_factory=list)


def archive_pair(path: Path) -> tuple[Path, Path | None] | None:
    """The training and the test file: of a NAME_TRAIN, NAME_TEST or NAME (which need not
    exist), or of a folder with one such pair; None when the path is none of these. A file
    without a part's name is its own."""
    if path.is_dir():
        found = [
            file
            for file in path.iterdir()
            if re.search(r"_train$", file.stem, re.IGNORECASE) and _of_archive(file)
        ]
        names = {file.stem.lower() for file in found}
        if len(names) != 1:
            return None
        path = min(found, key=lambda file: SUFFIXES.index(file.suffix.lower()))
    if path.suffix.lower() not in SUFFIXES:
        return None
    stem = re.sub(r"_(train|test)$", "", path.stem, flags=re.IGNORECASE)
    if not path.exists() or stem != path.stem:
        train, test = (_beside(path, f"{stem}_{part}") for part in ("TRAIN", "TEST"))
        if train is not None and _of_archive(train):
            return train, test
    return (path, None) if _of_archive(path) else None


def _of_archive(path: Path) -> bool:
    """A .ts or .arff file, or a text file of the archive's names whose first line is
    numbers: tables are called so, too."""
    suffix = path.suffix.lower()
    if suffix not in (".tsv", ".txt"):
        return suffix in SUFFIXES
    if not re.search(r"_(train|test)$", path.stem, re.IGNORECASE):
        return False
    try:
        with path.open("rb") as file:
            first = file.readline(HEAD_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    cells = _cells(first.strip())
    return len(cells) >= LEAST_CELLS and all(map(_is_number, cells))


def _beside(path: Path, stem: str) -> Path | None:
    for name in (stem, stem[: -len(stem.rpartition("_")[2])] + stem.rpartition("_")[2].lower()):
        if (file := path.with_name(name + path.suffix)).exists():
            return file
    return None


def read_archive(path: Path, max_bytes: int, form: FileForm | None = None) -> Archived:
    """Read a file; UserError with the line where it is wrong."""
    text = shown(path, 200)
    regular(path, "a file of the archive of time series", text)
    limit = min(max_bytes, available_memory() // 8)  # numbers as Python objects on their way to an array
    size = path.stat().st_size
    if size > limit:
        raise UserError(
            f"{text} has {size:,} bytes; at most {limit:,} are read (max_bytes, or an eighth of free memory)"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{text} cannot be read: {error.strerror or error}") from error
    if b"\0" in content:
        raise UserError(
            f"{text} has a NUL byte at offset {content.index(0):,}: it is damaged, or not a text file"
        )
    lines = _Lines(text, unicode_text(content, text, form or FileForm()).splitlines())
    found = {".ts": _read_ts, ".arff": _read_arff}.get(path.suffix.lower(), _read_text)(lines)
    if not found.series:
        raise UserError(f"{text} has no rows after @data; is it complete?")
    channels = {len(series) for series in found.series}
    if len(channels) > 1:
        raise UserError(
            f"{text} has rows of {min(channels)} and of {max(channels)} channels; expected as many in each "
            "row"
        )
    if found.labelled and found.regression:
        for number, label in enumerate(found.labels):
            with contextlib.suppress(ValueError):
                float(label or "nan")
                continue
            raise UserError(
                f"{text}: the target of row {number + 1} is '{shown(label, 40)}'; expected a number"
            )
    return found


class _Lines:
    """Numbered lines without comments and blank ones, and a complaint about the present one."""

    def __init__(self, text: str, lines: Sequence[str]) -> None:
        self.text, self._lines, self.number = text, lines, 0

    def __iter__(self) -> Iterator[str]:
        while self.number < len(self._lines):
            line = self._lines[self.number].strip()
            self.number += 1
            if line and not line.startswith(("#", "%")):
                yield line

    def wrong(self, what: str) -> UserError:
        return UserError(f"{self.text}, line {self.number:,}: {what}")


def _numbers(cells: str, lines: _Lines) -> ArchiveSeries:
    """Comma-separated numbers, ? and empty cells missing, beyond float32 missing too."""
    parts = cells.split(",")
    try:
        values = np.array(parts, np.float64)
    except ValueError:
        try:
            values = np.array([float(part) if part.strip() not in ("", "?") else np.nan for part in parts])
        except ValueError as error:
            bad = next(part for part in parts if not _is_number(part))
            raise lines.wrong(
                f"'{shown(bad.strip(), 40)}' is not a number; expected numbers with commas between, ? for "
                "missing"
            ) from error
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text.strip() in ("", "?")
    return True


# ------------------------------------------------------------------------------------------------------- text


def _cells(line: str) -> list[str]:
    mark = next((mark for mark in ("\t", ",") if mark in line), None)
    return line.split(mark)


def _read_text(lines: _Lines) -> Archived:
    """A label and the points of a series in each line; labels that are not whole
    numbers are numbers to predict."""
    found = Archived("class", labelled=True)
    for line in lines:
        label, *points = _cells(line)
        if not points:
            raise lines.wrong("it has one cell; expected a label and the points of a series")
        found.series.append(_numbers(",".join(points), lines)[None])
        number = float(_numbers(label, lines)[0])
        found.labels.append(
            "" if np.isnan(number) else f"{number:.0f}" if number.is_integer() else label.strip()
        )
    if any(not label.lstrip("-").isdecimal() for label in found.labels if label):
        found.target, found.regression = "target", True
    return found


# -------------------------------------------------------------------------------------------------------- .ts


@dataclass(frozen=True)
class _TsHeader:
    """What the lines before @data say.

    timed: rows are (time,value) pairs. channels: of each row, None where it is not said.
    """

    classes: tuple[str, ...]
    regression: bool
    labelled: bool
    timed: bool
    channels: int | None


def _read_ts(lines: _Lines) -> Archived:
    header = _ts_header(lines)
    target = "target" if header.regression else "class"
    found = Archived(target, header.classes, header.regression, header.labelled)
    wanted = header.channels
    for line in lines:
        label, parts = _ts_parts(line, header, wanted, lines)
        wanted = len(parts)
        if header.timed:
            pairs = [_timed(part, lines) for part in parts]
            channels = [values for _, values in pairs]
            found.times.append(pairs[0][0])
        else:
            channels = [_numbers(part, lines) for part in parts]
        found.series.append(_stacked(channels))
        found.labels.append(label)
    return found


def _ts_parts(line: str, header: _TsHeader, wanted: int | None, lines: _Lines) -> tuple[str, list[str]]:
    """The label of a row, "" where it has none, and the text of each channel.
    wanted: how many of these."""
    parts = _split_timed(line) if header.timed else line.split(":")
    label = parts.pop().strip() if header.labelled else ""
    if not parts or (len(parts) == 1 and not parts[0].strip()):
        raise lines.wrong("it has a label and no values; expected values:label, channels with : between them")
    if wanted is not None and len(parts) != wanted:
        has = f"it has {len(parts)} channels{' and a label' * header.labelled}"
        raise lines.wrong(f"{has}; the header or the first row has {wanted}")
    if header.classes and label not in header.classes and label not in ("", "?"):
        raise lines.wrong(_unknown(label, header.classes))
    return "" if label == "?" else label, parts


def _ts_header(lines: _Lines) -> _TsHeader:
    words = _ts_words(lines)
    for flag in ("classlabel", *_FLAGS):
        if words.get(flag, ["true"])[0] not in ("true", "false"):
            raise lines.wrong(f"@{flag} is '{shown(' '.join(words[flag]), 40)}'; expected true or false")
    regression = _says(words, "targetlabel")
    # @targetlabel says whether there are labels where @classlabel does not
    labelled = regression or _says(words, "classlabel" if "classlabel" in words else "targetlabel")
    classes = () if regression else tuple(words.get("classlabel", [])[1:])
    if labelled and not regression and not classes:
        raise lines.wrong(
            "@classlabel is true but names no class; expected classes after it, as in @classlabel true 1 2"
        )
    return _TsHeader(classes, regression, labelled, _says(words, "timestamps"), _dimensions(words, lines))


def _says(words: Mapping[str, Sequence[str]], flag: str) -> bool:
    return words.get(flag, ["false"])[0] == "true"


def _unknown(label: str, classes: Sequence[str]) -> str:
    return f"the label '{shown(label, 40)}' is not a class of the header ({shown(', '.join(classes), 60)})"


_FLAGS = ("timestamps", "targetlabel", "univariate", "missing", "equallength")


def _ts_words(lines: _Lines) -> dict[str, list[str]]:
    """Lower-case name -> its words (true and false in lower case), up to @data."""
    header: dict[str, list[str]] = {}
    for line in lines:
        if not line.startswith("@"):
            raise lines.wrong(
                f"'{shown(line, 40)}' is before @data; expected a header line such as @classlabel true 1 2"
            )
        words = line[1:].split()
        if not words:
            raise lines.wrong("a lone @; expected a header line such as @data")
        name = words[0].lower()
        if name == "data":
            return header
        values = (
            [words[1].lower() if words[1].lower() in ("true", "false") else words[1], *words[2:]]
            if words[1:]
            else []
        )
        if name in header:
            raise lines.wrong(f"@{shown(name, 40)} occurs twice in the header; remove one")
        if name in ("classlabel", *_FLAGS) and not values:
            raise lines.wrong(f"@{name} is neither true nor false")
        header[name] = values
    raise lines.wrong("the file ends without @data; is it complete?")


def _dimensions(header: dict[str, list[str]], lines: _Lines) -> int | None:
    """Channels that the header declares, or None."""
    words = header.get("dimensions") or header.get("dimension")
    if words is None:
        return 1 if _says(header, "univariate") else None
    if not words[0].isdecimal() or not 0 < int(words[0]) <= 100_000:
        raise lines.wrong(f"@dimensions is '{shown(words[0], 40)}'; expected a count of channels")
    return int(words[0])


def _split_timed(line: str) -> list[str]:
    """Channels of (time,value) pairs; times may hold colons."""
    return re.split(r":(?![^(]*\))", line)


def _timed(part: str, lines: _Lines) -> tuple[list[str], ArchiveSeries]:
    """(time,value) pairs -> the times and the values; they stand in the order of time in this format."""
    pairs = re.findall(r"\(([^()]*),([^(),]*)\)", part)
    rest = re.sub(r"\([^()]*,[^(),]*\)", "", part)
    if not pairs or rest.strip(", \t"):
        raise lines.wrong(
            f"'{shown(part.strip(), 40)}' are not (time,value) pairs, as required by @timestamps true"
        )
    return [time for time, _ in pairs], _numbers(",".join(value for _, value in pairs), lines)


def _stacked(channels: Sequence[ArchiveSeries]) -> ArchiveSeries:
    """Channels of one row as (channels, longest), NaN past the end of a shorter one."""
    longest = max(len(channel) for channel in channels)
    values = np.full((len(channels), longest), np.nan, np.float32)
    for row, channel in zip(values, channels, strict=True):
        row[: len(channel)] = channel
    return values


# ------------------------------------------------------------------------------------------------------ .arff


@dataclass(frozen=True)
class _Attribute:
    name: str
    kind: str  # "numeric", "relational" or "nominal"
    levels: tuple[str, ...] = ()


def _read_arff(lines: _Lines) -> Archived:
    attributes = _arff_header(lines)
    last = attributes[-1]
    relational = [attribute for attribute in attributes if attribute.kind == "relational"]
    by_name = last.name.lower() in ("target", "class", "label", "classlabel", "y")
    labelled = last.kind == "nominal" or by_name or (bool(relational) and last.kind == "numeric")
    values = attributes[:-1] if labelled else attributes
    odd = next((attribute for attribute in values if attribute.kind == "nominal"), None)
    if not values or odd is not None or (relational and len(values) > 1):
        raise lines.wrong(
            f"attribute '{shown((odd or last).name, 40)}' does not fit: expected one numeric attribute per "
            "point in time, or "
            "one relational attribute of channels, and the class as the last attribute"
        )
    found = Archived(
        last.name if labelled else "class", last.levels, labelled and last.kind == "numeric", labelled
    )
    for line in lines:
        if line.startswith("{"):
            raise lines.wrong("a sparse row in { }; expected all values, with commas between")
        label, series = (
            _relational_row(line, labelled, lines)
            if relational
            else _plain_row(line, labelled, len(values), lines)
        )
        if found.classes and label not in found.classes and label not in ("", "?"):
            raise lines.wrong(_unknown(label, found.classes))
        found.labels.append("" if label == "?" else label)
        found.series.append(series)
    return found


def _arff_header(lines: _Lines) -> list[_Attribute]:
    attributes: list[_Attribute] = []
    inside = False
    for line in lines:
        word = line.split(None, 1)[0].lower()
        if word == "@data":
            if inside:
                raise lines.wrong("@data is inside a relational attribute; expected @end before it")
            if not attributes:
                raise lines.wrong("there is no @attribute before @data")
            return attributes
        if word == "@end":
            if not inside:
                raise lines.wrong("@end closes nothing; expected @attribute NAME relational before it")
            inside = False
        elif word == "@attribute":
            attribute = _attribute(line, lines)
            if not inside:
                attributes.append(attribute)
            elif attribute.kind != "numeric":
                raise lines.wrong(f"attribute '{shown(attribute.name, 40)}' of a series is not numeric")
            inside = inside or attribute.kind == "relational"
        elif word != "@relation":
            raise lines.wrong(f"'{shown(line, 40)}' is before @data; expected @attribute NAME TYPE")
    raise lines.wrong("the file ends without @data; is it complete?")


def _attribute(line: str, lines: _Lines) -> _Attribute:
    match = re.match(r"""@attribute\s+('[^']*'|"[^"]*"|\S+)\s+(.+)$""", line, re.IGNORECASE)
    if match is None:
        raise lines.wrong(f"'{shown(line, 40)}' is not an attribute; expected @attribute NAME TYPE")
    name, kind = match[1].strip("'\""), match[2].strip()
    if kind.startswith("{"):
        if not kind.endswith("}"):
            raise lines.wrong(f"the classes of '{shown(name, 40)}' have no closing brace")
        return _Attribute(name, "nominal", tuple(_fields(kind[1:-1])))
    first = kind.split()[0].lower()
    if first in ("numeric", "real", "integer"):
        return _Attribute(name, "numeric")
    if first == "relational":
        return _Attribute(name, "relational")
    raise lines.wrong(
        f"attribute '{shown(name, 40)}' has the type '{shown(kind, 40)}'; expected numeric, relational or "
        "classes in braces"
    )


def _fields(text: str) -> list[str]:
    """Comma-separated texts, quoted ones without their quotes."""
    quote = '"' if '"' in text else "'"
    try:
        return [cell.strip() for cell in next(csv.reader([text], quotechar=quote, skipinitialspace=True), [])]
    except csv.Error:
        return [cell.strip(" \t'\"") for cell in text.split(",")]


def _plain_row(line: str, labelled: bool, points: int, lines: _Lines) -> tuple[str, ArchiveSeries]:
    cells, label = line, ""
    if labelled:
        cells, comma, label = line.rpartition(",")
        label = label.strip().strip("'\"")
        if not comma:
            raise lines.wrong(f"it has one cell; expected {points} values and a label")
    numbers = _numbers(cells, lines)
    if len(numbers) != points:
        raise lines.wrong(
            f"it has {len(numbers)} values{' and a label' * labelled}; the header declares {points}"
        )
    return label, numbers[None]


def _relational_row(line: str, labelled: bool, lines: _Lines) -> tuple[str, ArchiveSeries]:
    match = re.match(r"""(['"])(.*)\1\s*(?:,(.*))?$""", line)
    if match is None or (match[3] is None) == labelled:
        raise lines.wrong(
            "expected a quoted series, channels with \\n between them, then a comma and the label"
        )
    channels = [_numbers(channel, lines) for channel in match[2].split("\\n")]
    return (match[3] or "").strip().strip("'\""), _stacked(channels)
