"""Spellings of one category or class: which differ in nothing that could mean
anything, and which of them stands for all.

By default are joined those that differ in blanks, in a final dot, or in the capitals of words: Yes, "yes
", YES, yes. Capitals of single letters and of codes (M and m, CO and Co, aB3x) may be two things, so that
they are joined where the user says so, and with them what differs in a dash, a dot or an underscore
between letters: New York and new-york.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from advisor.data.columns.cells import BOOLEAN_WORDS, TEXTS, labels, tally
from advisor.data.columns.numbers import format_of_numbers

WORD_LETTERS = 3
"""A word of this many letters in several capitalisations says that capitals mean nothing in its column."""
_FLAGS = frozenset(word for pair in BOOLEAN_WORDS for word in pair if len(word) > 1)
_BLANKS = r"[\s\u200b\ufeff]+"
_LOOSE = r"[\s\u200b\ufeff._-]+"


def joins(cells: pl.Series, join: bool | None) -> dict[str, str]:
    """Spelling -> the most frequent one of the same thing, for those that are another.
    join: None for the default, see above."""
    return joins_of(tally(cells.drop_nulls()), join)


def joins_of(counts: pl.DataFrame, join: bool | None) -> dict[str, str]:
    """``joins`` of a tally."""
    if join is False:
        return {}
    loose = counts["value"].str.replace_all(_LOOSE, "").str.to_lowercase()
    alike = counts.filter(loose.is_duplicated())["value"].to_list()  # the most frequent first; few, of many
    capitals = join is True or _capitals_mean_nothing(alike)
    first: dict[str, str] = {}
    found = {}
    for spelling in alike:
        key = _key(
            spelling, wide=join is True, capitals=not capitals or (join is None and not _plain(spelling))
        )
        kept = first.setdefault(key, spelling) if key else spelling
        if kept != spelling:
            found[spelling] = kept
    return found


def respelled(strange: Iterable[str], known: Sequence[str], join: bool | None) -> dict[str, str]:
    """Spellings that are not known -> the only known one of the same thing, where there is one."""
    if join is False:
        return {}
    found = {}
    keys = [(False, True), (False, False), *([(True, False)] if join else [])]
    by_key = [_by_key(known, wide=wide, capitals=capitals) for wide, capitals in keys]
    for spelling in strange:
        for (wide, capitals), places in zip(keys, by_key, strict=True):
            if capitals or join or _plain(spelling):
                there = places.get(_key(spelling, wide=wide, capitals=capitals), ())
                if len(there) == 1:
                    found[spelling] = there[0]
                    break
    return found


def repeated_spellings(labels: Sequence[str]) -> int:
    """How many of these labels repeat another one but for capitals, blanks, and
    dashes or dots between letters.

    A sign is no spelling: -1 and 1, or A and A-, are two things.
    """
    plain = [unicodedata.normalize("NFKC", label) for label in labels]
    # what is other but for signs and blanks is other in any case; of the rest, a few, the keys are compared
    loose = [re.sub(_LOOSE, "", label).casefold() for label in plain]
    rows = Counter(loose)
    alike = [label for label, own in zip(plain, loose, strict=True) if rows[own] > 1]
    return len(alike) - len({_key(label, wide=True, capitals=False) or label for label in alike})


def replaced(cells: pl.Series, spellings: Mapping[str, str]) -> pl.Series:
    """The cells with each spelling by the one that stands for it."""
    return cells.replace(dict(spellings)) if spellings else cells


def _by_key(known: Sequence[str], *, wide: bool, capitals: bool) -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    for spelling in known:
        if key := _key(spelling, wide=wide, capitals=capitals):
            places.setdefault(key, []).append(spelling)
    return places


def _key(spelling: str, *, wide: bool, capitals: bool) -> str:
    """What spellings of one thing have in common.
    wide: across dashes and the like between letters, too;
    capitals: they count."""
    key = re.sub(_BLANKS, " ", unicodedata.normalize("NFC", spelling)).strip().removesuffix(".").rstrip()
    if wide:
        key = re.sub(r"(?<=[^\W\d])[ ._-]+(?=[^\W\d])", " ", key)
    return key if capitals else key.casefold()


def _plain(spelling: str) -> bool:
    """Whether it is written as words are: small, capital, or with capital initials."""
    return spelling in (spelling.lower(), spelling.upper(), spelling.capitalize(), spelling.title()) or (
        (text := spelling.strip()) in (text.capitalize(), text.title())
    )


def _capitals_mean_nothing(spellings: Sequence[str]) -> bool:
    """Whether a word is among them in several capitalisations."""
    cased = {_key(spelling, wide=False, capitals=True) for spelling in spellings if _plain(spelling)}
    seen = set[str]()
    for key in sorted(cased):
        low = key.casefold()
        if low in seen and (low in _FLAGS or sum(c.isalpha() for c in low) >= WORD_LETTERS):
            return True
        seen.add(low)
    return False


def one_spelling(
    train: pl.DataFrame, counts: Mapping[str, pl.DataFrame], join: bool | None
) -> tuple[pl.DataFrame, dict[str, dict[str, str]], dict[str, int]]:
    """The training rows with one spelling of each category, each column's spellings that were joined, and the
    count of their cells.
    counts: tallies of the categories."""
    found = {name: joined for name, own in counts.items() if (joined := joins_of(own, join))}
    frame, notes = joined_cells(train, found)
    return frame, found, notes


def class_spellings(cells: pl.Series, join: bool | None) -> dict[str, str]:
    """The spellings of classes that are read as another one; none where a single class
    would be left, or cells are numbers."""
    if cells.dtype not in TEXTS:
        return {}
    counts = tally(labels(cells).drop_nulls())
    if cells.dtype == pl.String and format_of_numbers(counts) is not None:
        return {}
    joined = joins_of(counts, join)
    return joined if counts.height - len(joined) > 1 else {}


def joined_cells(
    frame: pl.DataFrame, spellings: Mapping[str, Mapping[str, str]]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The frame with spellings replaced, and the count of cells where any were."""
    cells = 0
    wanted = {name: joined for name, joined in spellings.items() if joined}
    for name, joined in wanted.items():
        cells += int(frame[name].cast(pl.String).is_in(list(joined)).sum())
        frame = frame.with_columns(replaced(frame[name].cast(pl.String), joined))
    return frame, {"joined_cells": cells} if wanted else {}
