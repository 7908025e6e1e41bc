"""How data are to be read, as a user says it: checked once, where it is said. Loads no arrays or tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from advisor.errors import UserError, did_you_mean, shown
from advisor.kinds import COLUMN_TYPES, KINDS, TASK_NAMES, ColumnType, Kind, TaskName

MAX_SEED = 2**31 - 1
TEST_FRACTION = 0.2
"""The share of the rows that is held out for the test, unless the user says otherwise."""
ChannelAxis = Literal["first", "last"]


@dataclass(frozen=True)
class FileForm:
    """How a file is to be read where it does not say so itself.

    encoding: of a text, but one that begins with the mark of Unicode.
    sheet: the name of a spreadsheet's sheet. Each None to find it out.
    remembered: they are those of the training rows; new rows may be in UTF-8, or in a sheet of another name.
    """

    encoding: str | None = None
    sheet: str | None = None
    remembered: bool = False


@dataclass(frozen=True)
class ReadingOptions:
    """How to read a data set and divide it. UserError for what no data could meet; what depends on the data,
    such as names of columns, is checked with them.

    test: test rows in any format; by default the source's own test part, else ``test_fraction`` of the rows
        is held out: the latest with ``time_column`` (of a table), whole groups with ``group_column``, else at
        random with each class in its share. Which rows these are depends on their content and ``seed``, not
        on their order. With a fraction of 0 all rows train, and nothing is tested.
    types: column -> type, where the inference is to be overridden.
    kind, task: by default they are found out.
    id_column: of a long table of sequences, which rows are one; of images, what names them.
    time_column: what orders rows in time, or the points of a sequence.
    group_column: rows that belong together.
    weight_column: how much a row counts in training and validation, 0 or more; rows of weight 0 are left out.
    channels: where three-dimensional arrays of sequences have them; by default the other axis is the one
        whose neighbours resemble each other.
    strict: refuse a test table with a column that is unlike the training rows in form.
    join_spellings: read spellings of one category or class as one; None: those that differ in blanks, a final
        dot or the capitals of words.
    encoding: of text files that are not in Unicode; sheet: of spreadsheets; by default they are found out.
    ignore: of masks, the number or colour of unlabelled points; 255 by default.
    """

    test: Any = None
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    kind: Kind | None = None
    task: TaskName | None = None
    id_column: str | None = None
    time_column: str | None = None
    group_column: str | None = None
    weight_column: str | None = None
    channels: ChannelAxis | None = None
    test_fraction: float = TEST_FRACTION
    seed: int = 0
    strict: bool = False
    join_spellings: bool | None = None
    encoding: str | None = None
    sheet: str | None = None
    ignore: str | int | None = None

    def __post_init__(self) -> None:
        self._check_words()
        self._check_numbers()
        self._check_names()

    @property
    def form(self) -> FileForm:
        """How files are read where they do not say so."""
        return FileForm(self.encoding, self.sheet)

    @property
    def tested(self) -> bool:
        """Whether the user wants rows that are tested."""
        return self.test is not None or self.test_fraction > 0

    def _check_words(self) -> None:
        for what, word, words in (
            ("kind", self.kind, KINDS),
            ("task", self.task, TASK_NAMES),
            ("channels", self.channels, get_args(ChannelAxis)),
        ):
            if word is not None and word not in words:
                near = did_you_mean(str(word), words)
                raise UserError(f"{what} is '{shown(word)}'{near}; expected {_one_of(words)}")
        if not isinstance(self.types, Mapping):
            raise UserError(f"types is {self.types!r}; expected NAME: VALUE pairs")
        for column, wanted in self.types.items():
            if wanted not in COLUMN_TYPES:
                raise UserError(
                    f"types: column '{shown(column)}' has the type "
                    f"'{shown(wanted)}'{did_you_mean(str(wanted), COLUMN_TYPES)}; expected one of "
                    f"{', '.join(COLUMN_TYPES)}"
                )

    def _check_numbers(self) -> None:
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed <= MAX_SEED:
            raise UserError(f"seed is {self.seed!r}; expected a whole number from 0 to {MAX_SEED:,}")
        fraction = self.test_fraction
        if not isinstance(fraction, int | float) or not 0.0 <= fraction < 1.0:
            raise UserError(
                f"test_fraction is {fraction}; expected a number between 0 and 1, such as 0.2, or 0"
            )

    def _check_names(self) -> None:
        for name in ("id_column", "time_column", "group_column", "weight_column", "encoding", "sheet"):
            if not isinstance(getattr(self, name), str | None):
                what = "the name of one column" if name.endswith("_column") else "a name"
                raise UserError(f"{name} is {getattr(self, name)!r}; expected {what}")


DEFAULT_OPTIONS = ReadingOptions()


def _one_of(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}"
