"""Which encoding a text file is in: Unicode where it is valid, else found out
from its lines by charset-normalizer."""

from __future__ import annotations

import codecs
import mmap
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from advisor.errors import UserError, did_you_mean, shown

WESTERN = "cp1252"
CANDIDATES = (
    WESTERN,
    "cp1250",
    "cp1254",
    "cp1251",
    "koi8_r",
    "cp1253",
    "cp932",
    "euc_jp",
    "gb18030",
    "big5",
    "cp949",
)
"""Encodings that tables are written in, besides Unicode; the Western one first,
which is by far the most frequent."""
_LATIN = (WESTERN, "cp1254", "cp1250")
NAMES = {
    "cp1252": "Windows-1252 (Western)",
    "cp1250": "Windows-1250 (Central European)",
    "cp1254": "Windows-1254 (Turkish)",
    "cp1251": "Windows-1251 (Cyrillic)",
    "koi8_r": "KOI8-R (Cyrillic)",
    "cp1253": "Windows-1253 (Greek)",
    "cp932": "Shift-JIS (Japanese)",
    "euc_jp": "EUC-JP (Japanese)",
    "gb18030": "GBK (Chinese)",
    "big5": "Big5 (Chinese)",
    "cp949": "CP949 (Korean)",
}
SAMPLE_BYTES = 1 << 14
"""Lines of this many bytes that are not ASCII are looked at."""
WESTERN_WORDS = 0.9
"""Such a share of the words must look like a Western language for the Western encoding."""
MOST_LETTERS = 3
"""In a row, that are not ASCII, in a Western word."""
CLOSE = 0.05
"""Two encodings whose decoded texts differ by less in charset-normalizer's
measure of mess are equally good."""
UNLIKELY_SHARE = 0.2
"""Of the signs beyond ASCII; with more of them that a language hardly uses, another encoding is likelier."""
MOST_MESS = 0.5
"""A text that is messier than this is in none of them."""
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_WORD = re.compile(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*")
_RARE = "¤¦¨¬¯´¸·¶¹¾"
"""Signs of Windows-1252 that hardly any text has."""
_SIGN_IN_WORD = re.compile(r"[\u00a1-\u00bf\u00d7\u00f7](?<![¡¿ªµº])[^\W\d_]")
_PRINTED = str.maketrans(dict.fromkeys("‘’‚“”„‹›«»–—…•€©®™°\u00a0", "."))
"""Those that stand beside any other."""


@dataclass(frozen=True)
class Encoding:
    """name: a codec of Python's.
    others: those that would give as sound a text, the likeliest first."""

    name: str
    others: tuple[str, ...] = ()


def checked_encoding(name: str) -> str:
    """The codec that a user names; UserError where there is none for texts."""
    try:
        "".encode(name)
        return codecs.lookup(name).name
    except (LookupError, ValueError, TypeError):
        near = did_you_mean(str(name), ("utf-8", "utf-16", "latin-1", "shift_jis", "gbk", *CANDIDATES))
        raise UserError(
            f"there is no encoding '{shown(name, 40)}'{near}; such as utf-8, {', '.join(CANDIDATES)}"
        ) from None


def find_encoding(content: bytes | mmap.mmap, text: str) -> Encoding:
    """The encoding of a content that is not UTF-8, judged by its first lines beyond ASCII.

    UserError where it is UTF-8 with some damage, or no candidate fits.
    text: the source, for messages.
    """
    lines = list(_lines(content))
    damaged = [line for line in lines if not decodes(line, "utf-8")]
    if 2 * len(damaged) < len(lines):
        raise UserError(
            f"{text} is UTF-8 but damaged at byte {content.find(damaged[0]) if damaged else 0:,}: download "
            "or save it again, or name its encoding"
        )
    sample = b"\n".join(lines)
    found = _ranked(sample)
    western = [_is_western(word) for word in set(_WORD.findall(sample)) if decodes(word, WESTERN)]
    looks_western = decodes(sample, WESTERN) and sum(western) >= WESTERN_WORDS * len(western)
    best = min(found.values(), default=1.0)
    # signs within words speak against the Western one, whatever the measure of mess says
    latin = (
        _latin(found, _LATIN, CLOSE) or [WESTERN] if looks_western else _latin(found, _LATIN[::-1], 3 * CLOSE)
    )
    others = [name for name in found if name not in _LATIN]
    likely_others = [] if looks_western else [name for name in others if found[name] <= best + CLOSE]
    fits = [*likely_others, *latin, *others]
    names = [name for name in dict.fromkeys(fits) if decodes(content, name)]
    if not names:
        raise UserError(
            f"{text} is neither UTF-8 nor valid text in a common encoding; name its encoding, with "
            f"--encoding or encoding= ({', '.join(CANDIDATES)}, or another encoding that Python knows)"
        )
    return Encoding(names[0], tuple(name for name in names[1:] if found.get(name, 1.0) <= best + CLOSE))


def _latin(found: dict[str, float], order: Sequence[str], close: float) -> list[str]:
    """Those of the Latin alphabet, in this order where they are as good."""
    latin = [name for name in order if name in found]
    best = min((found[name] for name in latin), default=0.0)
    return sorted(latin, key=lambda name: found[name] > best + close)


def _lines(content: bytes | mmap.mmap) -> Iterator[bytes]:
    """Different lines that are not ASCII alone, at most SAMPLE_BYTES of them in all."""
    at, size, seen = 0, 0, set[bytes]()
    while size < SAMPLE_BYTES and (hit := _BEYOND_ASCII.search(content, at)):
        begin = content.rfind(b"\n", at, hit.start()) + 1 or at
        end = content.find(b"\n", hit.start())
        at = end + 1 if end >= 0 else len(content)
        line = content[begin : min(at, begin + SAMPLE_BYTES)].strip()
        if line not in seen:
            seen.add(line)
            size += len(line)
            yield line


def _ranked(sample: bytes) -> dict[str, float]:
    """The candidates that decode the sample to sound text -> how messy it is, the soundest first."""
    from charset_normalizer import from_bytes  # of its own models of languages

    ranked: dict[str, float] = {}
    for match in from_bytes(sample, cp_isolation=list(CANDIDATES), threshold=MOST_MESS):
        for name in (match.encoding, *match.could_be_from_charset):
            if name in CANDIDATES:
                ranked.setdefault(name, match.chaos)
    return {name: ranked[name] for name in sorted(ranked, key=lambda name: _is_unlikely(sample, name))}


def _is_unlikely(sample: bytes, encoding: str) -> bool:
    """Whether the text has mostly signs that its language hardly uses: Chinese ones
    in Korean, narrow kana in Japanese."""
    text = [sign for sign in sample.decode(encoding, "replace") if sign > "\x7f"]
    low, high = {"cp949": ("\u4e00", "\u9fff"), "cp932": ("\uff61", "\uff9f")}.get(
        encoding, ("\ue000", "\uf8ff")
    )
    return sum(low <= sign <= high for sign in text) > UNLIKELY_SHARE * len(text)


def _is_western(word: bytes) -> bool:
    """Whether a word looks like a Western language in Windows-1252: few letters
    beyond ASCII, no sign within it."""
    text = word.decode(WESTERN).translate(_PRINTED)
    beyond = [sign for sign in text if sign > "\x7f"]
    if any(sign in _RARE for sign in beyond) or _SIGN_IN_WORD.search(text):
        return False
    runs = re.findall(r"[^\x00-\x7f]+", text)
    letters = (
        all(unicodedata.category(sign).startswith("L") for sign in run) and len(run) <= MOST_LETTERS
        for run in runs
    )
    sound = all(good or len(run) == 1 for good, run in zip(letters, runs, strict=True))
    return sound and (len(text) == 1 or 3 * len(beyond) <= 2 * len(text))


def decodes(content: bytes | mmap.mmap, encoding: str) -> bool:
    """Whether all of the content means something in the encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    step = 1 << 22
    try:
        for at in range(0, len(content), step):
            decoder.decode(content[at : at + step], final=at + step >= len(content))
    except UnicodeError:
        return False
    return True
