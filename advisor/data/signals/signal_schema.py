"""What images or sequences were read as: all that is needed to read new rows in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from advisor.data.options import FileForm
from advisor.data.signals.cleaning import Cleaning
from advisor.data.tables.target import ClassValues
from advisor.kinds import GridKind, TaskName


@dataclass(frozen=True)
class SignalSchema:
    """All that is needed to read new rows in the same way.

    target: what is predicted: "class" for folders of classes, else the name of the array or column.
    classes: labels in code order, () for regression.
    size: (height, width) that all images are brought to, or (length,) of the longest training sequence.
    missing: points are missing in training sequences, or their lengths differ.
    columns: of a table, those that hold the values (or the paths of images);
    id_column, order_column: those that name a row and give the order of its points.
    channels_last: arrays of sequences stood as (rows, points, channels).
    bits: those of the largest pixel (12 where a scanner filled so many of 16), 0
        for a schema that was saved without.
    cleaning: what is taken out of sequences.
    encoding, sheet: of the training rows' file, as ``reading.Source`` has them.
    given: the classes as an array of labels has them; None where they are those of a file, which are text.
    """

    kind: GridKind
    target: str
    task: TaskName
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, ...]
    missing: bool
    group_column: str | None = None
    time_column: None = None
    columns: tuple[str, ...] = ()
    id_column: str | None = None
    order_column: str | None = None
    channels_last: bool = False
    bits: int = 0
    cleaning: Cleaning = field(default_factory=Cleaning)
    encoding: str = ""
    sheet: str = ""
    given: ClassValues | None = None

    @property
    def form(self) -> FileForm:
        """How files of new rows are read, where they do not say so."""
        return FileForm(self.encoding or None, self.sheet or None, remembered=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row: (channels, height, width) or (channels, length)."""
        return (self.channels, *self.size)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary; ``from_dict`` reads it back."""
        return asdict(self) | {name: list(getattr(self, name)) for name in ("classes", "size", "columns")}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SignalSchema:
        """The schema that ``to_dict`` wrote."""
        lists = {name: tuple(data[name]) for name in ("classes", "size", "columns")}
        given = ClassValues(**data["given"]) if data.get("given") else None
        return cls(
            **{**data, **lists, "cleaning": Cleaning.from_dict(data.get("cleaning", {})), "given": given}
        )
