"""What a table was read as: all that is needed to read new rows in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from advisor.data.columns.column import Column
from advisor.data.options import FileForm
from advisor.data.tables.target import ClassValues
from advisor.dataset import Cycle
from advisor.kinds import ColumnType, Kind, TaskName

NAMES: tuple[ColumnType, ...] = ("categorical", "identifier", "text")
"""The types whose cells are no quantities."""
MAX_LEVELS = 10_000
"""A categorical column keeps this many levels, the most frequent ones; the rest are UNSEEN."""


@dataclass(frozen=True)
class Usual:
    """What the training rows had in a column: as what it was stored, and how many of their cells
    were missing, how many unreadable, and how many held a category that hardly any other row has,
    so that new rows will have others."""

    stored: str
    rows: int
    missing: int = 0
    unreadable: int = 0
    rare: int = 0


@dataclass(frozen=True)
class TableSchema:
    """All that is needed to read new rows in the same way.

    classes: labels in code order, () for regression.
    levels: categorical column -> sorted levels of the training rows. The group and the time
        column are not among the columns: a group is a name, and a time beyond the training
        rows is one that no network has seen.
    time: how the time column's cells are read.
    time_parts: the numeric arrays that it becomes nevertheless: what comes round in a date (``CYCLES``), and
        the time itself, which a network reads as ``time_trend`` says; () in models of before there was any.
    target_format: how a regression target's text is read, as ``Column.format``;
        predictions are plain numbers.
    usual: what the training rows had in a column; {} in models of before.
    given: the classes as they were given, in which predictions are; None for
        regression and in models of before.
    spellings: of categories and classes (the target) that are read as another one;
    join_spellings: whether those of new rows are.
    encoding, sheet: of the training rows' file, as ``Source`` has them.
    weight_column: how much each training row counts; new rows need none.
    calendar: what comes round in the numeric arrays; working: those, 0 or 1, that tell working days from
        others; () in models of before there were any.
    """

    columns: tuple[Column, ...]
    target: str
    task: TaskName
    classes: tuple[str, ...]
    levels: dict[str, tuple[str, ...]]
    group_column: str | None = None
    time_column: str | None = None
    time: Column | None = None
    time_parts: tuple[str, ...] = ()
    target_format: str = ""
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    usual: dict[str, Usual] = field(default_factory=dict)
    spellings: dict[str, dict[str, str]] = field(default_factory=dict)
    join_spellings: bool | None = None
    encoding: str = ""
    sheet: str = ""
    given: ClassValues | None = None
    weight_column: str | None = None
    calendar: tuple[Cycle, ...] = ()
    working: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """What the rows are."""
        return "table"

    @property
    def form(self) -> FileForm:
        """How files of new rows are read, where they do not say so."""
        return FileForm(self.encoding or None, self.sheet or None, remembered=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of names that were text in training: those of new rows are text,
        even where they look like numbers."""
        of_names = self.of_type(*NAMES)
        return tuple(c.name for c in of_names if c.name in self.usual and self.usual[c.name].stored == "text")

    def of_type(self, *types: ColumnType) -> tuple[Column, ...]:
        """The columns of these types, in order."""
        return tuple(column for column in self.columns if column.type in types)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; ``from_dict`` reads it back."""
        return asdict(self) | {
            "columns": [asdict(column) for column in self.columns],
            "classes": list(self.classes),
            "levels": {name: list(levels) for name, levels in self.levels.items()},
            "words": {name: list(words) for name, words in self.words.items()},
            "time_parts": list(self.time_parts),
            "usual": {name: asdict(had) for name, had in self.usual.items()},
            "calendar": [asdict(cycle) for cycle in self.calendar],
            "working": list(self.working),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TableSchema:
        """The schema that ``to_dict`` wrote."""
        return cls(
            columns=tuple(Column(**column) for column in data["columns"]),
            target=data["target"],
            task=data["task"],
            classes=tuple(data["classes"]),
            levels={name: tuple(levels) for name, levels in data["levels"].items()},
            group_column=data["group_column"],
            time_column=data["time_column"],
            time=Column(**data["time"]) if data.get("time") else None,
            time_parts=tuple(data.get("time_parts", ())),
            target_format=data.get("target_format", ""),
            words={name: tuple(words) for name, words in data.get("words", {}).items()},
            usual={name: Usual(**had) for name, had in data.get("usual", {}).items()},
            given=ClassValues(**data["given"]) if data.get("given") else None,
            spellings={name: dict(joined) for name, joined in data.get("spellings", {}).items()},
            join_spellings=data.get("join_spellings"),
            encoding=data.get("encoding", ""),
            sheet=data.get("sheet", ""),
            weight_column=data.get("weight_column"),
            calendar=tuple(Cycle(**cycle) for cycle in data.get("calendar", ())),
            working=tuple(data.get("working", ())),
        )
