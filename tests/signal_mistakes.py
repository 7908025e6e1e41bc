"""Ways to give images or sequences wrongly, as a table: what lies in a folder,
what is asked, a word of the complaint.

Each is one line that says what to fix. ``options`` are those of ``load_signals``.
"""

import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

Prepare = Callable[[Path], object]
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Mistake:
    """options: of load_signals;
    says: what the message must have."""

    name: str
    source: str
    says: str
    prepare: Prepare = lambda here: None
    options: dict[str, Any] = field(default_factory=dict)


def picture(path: Path, size: tuple[int, int] = (10, 12), mode: str = "RGB", seed: int = 0) -> None:
    """An image of random pixels; size is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), np.uint8)
    Image.fromarray(pixels).save(path)


def folders(here: Path, classes: str = "ab", each: int = 8, root: str = "set", **how: Any) -> Path:
    """A folder per class with images that differ."""
    for code, label in enumerate(classes):
        for row in range(each):
            picture(here / root / label / f"{row}.png", seed=1000 * code + row, **how)
    return here / root


def bomb(path: Path) -> None:
    """A PNG of a few bytes whose header declares 60,000 x 60,000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    header = (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def npz(name: str = "x.npz", **arrays: Any) -> Prepare:
    return lambda here: np.savez(here / name, **arrays)


def text(content: str, name: str) -> Prepare:
    return lambda here: (here / name).write_text(content)


def declared(here: Path) -> None:
    """An .npz of which the header of X declares a terabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1000, 1000)}
    )
    with zipfile.ZipFile(here / "x.npz", "w") as archive:
        archive.writestr("X.npy", header.getvalue())


def truncated(here: Path) -> None:
    np.savez(here / "whole.npz", X=IMAGES, y=CODES)
    (here / "x.npz").write_bytes((here / "whole.npz").read_bytes()[:900])


def all_bad(here: Path) -> None:
    for label in "ab":
        for row in range(6):
            (here / "set" / label).mkdir(parents=True, exist_ok=True)
            (here / "set" / label / f"{row}.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")


def paths_table(here: Path, **columns: Any) -> None:
    folders(here, root="pictures")
    paths = [f"pictures/{label}/{row}.png" for label in "ab" for row in range(8)]
    pl.DataFrame({"file": paths, "y": ["a"] * 8 + ["b"] * 8} | columns).write_csv(here / "x.csv")


def moved(here: Path) -> None:
    paths_table(here)
    for file in list((here / "pictures").rglob("*.png"))[:12]:
        file.unlink()


def long(here: Path, **columns: Any) -> None:
    """24 sequences of 5 points of two channels."""
    ids = np.repeat(np.arange(24), 5)
    frame = {"id": ids, "t": np.tile(np.arange(5), 24), "a": RNG.normal(size=120), "b": RNG.normal(size=120)}
    pl.DataFrame(frame | {"y": ["u" if row % 2 else "v" for row in ids]} | columns).write_csv(here / "x.csv")


def test_in_channels(here: Path) -> None:
    np.savez(
        here / "x.npz", X_train=SERIES, y_train=CODES, X_test=RNG.normal(size=(9, 3, 20)), y_test=CODES[:9]
    )


IMAGES = RNG.integers(0, 256, (20, 6, 7), np.uint8)
SERIES = RNG.normal(size=(20, 2, 20))
CODES = np.arange(20) % 2
OBJECTS = np.array([np.zeros(3), np.zeros(4)] * 10, dtype=object)
TS = "@problemName x\n@timeStamps false\n@univariate true\n@classLabel true u v\n@data\n"
ROWS = "".join(f"{row},2,3:{'u' if row % 2 else 'v'}\n" for row in range(12))
RELATIONAL = (
    "@relation x\n@attribute series relational\n@attribute t1 numeric\n@attribute t2 numeric\n@end series\n"
    "@attribute class {u,v}\n@data\n"
)
LONG = {"target": "y", "kind": "sequence", "id_column": "id", "time_column": "t"}

MISTAKES = [
    Mistake("all files corrupt", "set", "cannot be read", all_bad),
    Mistake("a bomb and nothing else", "set", "100 million", lambda h: [bomb(h / "set" / c / "1.png") for c in "ab"]),
    Mistake("no class folders", "set", "folder of PNG", lambda h: [picture(h / "set" / f"{r}.png") for r in range(5)]),
    Mistake("one class", "set", "one class only", lambda h: folders(h, "a")),
    Mistake("one folder of images beside their table", "pictures", "pictures/x.csv?", lambda h: [
        folders(h, "a", root="pictures"), (h / "pictures" / "x.csv").write_text("id,y\n1,2\n")]),
    Mistake("channels of a file that has its own", "x.ts", "already says", text(TS + ROWS, "x.ts"), {"channels": "last"}),
    Mistake("an array without rows", "x.npz", "expected rows of values", npz(X=SERIES[:0], y=CODES[:0])),
    Mistake("an array without channels", "x.npz", "expected rows of values", npz(X=SERIES[:, :0], y=CODES)),
    Mistake("an array without points", "x.npz", "expected rows of values", npz(X=SERIES[:, :, :0], y=CODES)),
    Mistake("no point at all", "x.npz", "all 20 sequences are empty", npz(X=SERIES * np.nan, y=CODES)),
    Mistake("channels that are neither", "x.npz", "first or last", npz(X=SERIES, y=CODES), {"channels": "middle"}),
    Mistake("a line of the archive with a word", "x_TRAIN.tsv", "line 2: 'b' is not a number",
            text("1\t2\t3\t4\n1\tb\t3\t4\n", "x_TRAIN.tsv")),
    Mistake("a line of the archive with a label only", "x_TRAIN.txt", "one cell", text("1 2 3 4\n1\n", "x_TRAIN.txt")),
    Mistake("an empty folder", "set", "no folders", lambda h: (h / "set").mkdir()),
    Mistake("folders without images", "set", "no images", lambda h: [(h / "set" / c).mkdir(parents=True) for c in "ab"]),
    Mistake("too few images", "set", "10 are needed", lambda h: folders(h, each=2)),
    Mistake("an id column for a folder", "set", "leave it out", folders, {"id_column": "id"}),
    Mistake("a folder that is not there", "set", "does not exist", options={"kind": "image"}),
    Mistake("one image", "x.png", "one image", lambda h: picture(h / "x.png")),
    Mistake("test rows of other classes", "set", "no training row has",
            lambda h: (folders(h), folders(h, "cd", root="new")), {"test": "new"}),
    Mistake("regression of class names", "set", "cannot be a regression", folders, {"task": "regression"}),
    Mistake("a table whose files moved", "x.csv", "do not exist", moved, {"target": "y", "kind": "image"}),
    Mistake("a table of images without a target", "x.csv", "name the column", paths_table),
    Mistake("the paths as target", "x.csv", "column of existing image files", paths_table, {"target": "file", "kind": "image"}),
    Mistake("a target misspelt", "x.csv", "did you mean 'label'", lambda h: paths_table(h, label=[1, 2] * 8),
            {"target": "lable"}),
    Mistake("a table without paths", "x.csv", "neither a column of existing image files", text("a,y\n1,2\n", "x.csv"),
            {"target": "y", "kind": "image"}),
    Mistake("no labels", "x.npz", "no array of labels", npz(X=IMAGES)),
    Mistake("a label array misspelt", "x.npz", "did you mean 'answers'", npz(X=IMAGES, answers=CODES), {"target": "anwsers"}),
    Mistake("no values", "x.npz", "no array of values", npz(a=IMAGES, y=CODES)),
    Mistake("lengths differ", "x.npz", "as many labels as rows", npz(X=IMAGES, y=CODES[:19])),
    Mistake("labels of two columns", "x.npz", "one label per row", npz(X=IMAGES, y=np.zeros((20, 2)))),
    Mistake("complex labels", "x.npz", "numbers or texts", npz(X=IMAGES, y=CODES * 1j)),
    Mistake("objects", "x.npz", "never unpickled", npz(X=OBJECTS, y=CODES)),
    Mistake("truncated", "x.npz", "damaged", truncated),
    Mistake("no zip", "x.npz", "damaged", text("hello", "x.npz")),
    Mistake("an empty file", "x.npz", "is empty", text("", "x.npz")),
    Mistake("a terabyte declared", "x.npz", "declares 1,000,000,000,000", declared),
    Mistake("one dimension", "x.npz", "expected sequences", npz(X=np.arange(20.0), y=CODES)),
    Mistake("five dimensions", "x.npz", "expected images", npz(X=np.zeros((20, 2, 3, 4, 5)), y=CODES), {"kind": "image"}),
    Mistake("forty channels", "x.npz", "channels", npz(X=np.zeros((20, 40, 40, 40)), y=CODES)),
    Mistake("pixels below zero", "x.npz", "scale them", npz(X=np.full((20, 5, 5, 3), -1.0), y=CODES)),
    Mistake("pixels missing", "x.npz", "missing or infinite", npz(X=np.full((20, 5, 5, 3), np.nan), y=CODES)),
    Mistake("texts as values", "x.npz", "expected numbers", npz(X=np.full((20, 5), "a"), y=CODES)),
    Mistake("no rows", "x.npz", "rows of values", npz(X=np.zeros((0, 5)), y=CODES[:0])),
    Mistake("one label only", "x.npz", "only one value", npz(X=IMAGES, y=CODES * 0)),
    Mistake("test images of another size", "x.npz", "expected one",
            npz(X_train=IMAGES, y_train=CODES, X_test=IMAGES[:9, :4], y_test=CODES[:9])),
    Mistake("test rows of other channels", "x.npz", "expected as many", test_in_channels),
    Mistake("groups misspelt", "x.npz", "of groups", npz(X=SERIES, y=CODES), {"group_column": "persons"}),
    Mistake("an array without labels beside it", "x.npy", "has no labels", lambda h: np.save(h / "x.npy", IMAGES)),
    Mistake("a label file that is not there", "x.npy", "does not exist", lambda h: np.save(h / "x.npy", IMAGES),
            {"target": "labels.npy"}),
    Mistake("an unknown kind", "x.npz", "did you mean 'image'", npz(X=IMAGES, y=CODES), {"kind": "images"}),
    Mistake("an unknown task", "x.npz", "expected binary", npz(X=IMAGES, y=CODES), {"task": "classify"}),
    Mistake("a share of two", "x.npz", "between 0 and 1", npz(X=IMAGES, y=CODES), {"test_fraction": 2.0}),
    Mistake("a plain table", "x.csv", "is a table", text("a,y\n1,2\n", "x.csv"), {"target": "y"}),
    Mistake("no @data", "x.ts", "without @data", text(TS.replace("@data\n", ""), "x.ts")),
    Mistake("no rows after @data", "x.ts", "no rows", text(TS, "x.ts")),
    Mistake("rows before @data", "x.ts", "line 1", text("1,2:a\n" + TS, "x.ts")),
    Mistake("no class named", "x.ts", "names no class", text(TS.replace(" u v", "") + ROWS, "x.ts")),
    Mistake("neither true nor false", "x.ts", "true or false", text(TS.replace("@univariate true", "@univariate maybe"), "x.ts")),
    Mistake("a ragged row", "x.ts", "line 8", text(TS + ROWS[:18] + "1,2:3,4:u\n" + ROWS, "x.ts")),
    Mistake("an unknown label", "x.ts", "is not a class", text(TS + ROWS + "1,2,3:w\n", "x.ts")),
    Mistake("a word among numbers", "x.ts", "is not a number", text(TS + ROWS + "1,two,3:u\n", "x.ts")),
    Mistake("only a label", "x.ts", "no values", text(TS + ROWS + ":u\n", "x.ts")),
    Mistake("no labels in .ts", "x.ts", "has no labels",
            text(TS.replace("true u v", "false") + "1,2,3\n" * 12, "x.ts")),
    Mistake("a target in words", "x.ts", "expected a number",
            text(TS.replace("@classLabel true u v", "@targetLabel true") + ROWS, "x.ts")),
    Mistake("another target than .ts has", "x.ts", "its target is", text(TS + ROWS, "x.ts"), {"target": "y"}),
    Mistake("times that are none", "x.ts", "(time,value)", text(TS.replace("Stamps false", "Stamps true") + ROWS, "x.ts")),
    Mistake("a NUL byte", "x.ts", "NUL byte", text(TS + ROWS + "\0", "x.ts")),
    Mistake("a relational row without quotes", "x.arff", "quoted series", text(RELATIONAL + "1,2,u\n", "x.arff")),
    Mistake("relational channels that differ", "x.arff", "channels",
            text(RELATIONAL + "'1,2\\n3,4',u\n" * 9 + "'1,2',v\n" * 9, "x.arff")),
    Mistake("@end missing", "x.arff", "is not numeric", text(RELATIONAL.replace("@end series\n", ""), "x.arff")),
    Mistake("a type that is none", "x.arff", "has the type", text(RELATIONAL.replace("t1 numeric", "t1 date"), "x.arff")),
    Mistake("too few values in a row", "x.arff", "declares",
            text("@relation x\n@attribute a numeric\n@attribute b numeric\n@attribute class "
                 "{u,v}\n@data\n1,u\n", "x.arff")),
    Mistake("a folder of two problems", "set", "one pair",
            lambda h: [(h / "set").mkdir(), *(text(TS + ROWS, f"set/{n}_TRAIN.ts")(h) for n in "xy")], {"kind": "sequence"}),
    Mistake("an id column misspelt", "x.csv", "did you mean 'id'", long, LONG | {"id_column": "idd"}),
    Mistake("a time column misspelt", "x.csv", "no time column", long, LONG | {"time_column": "when"}),
    Mistake("no target named", "x.csv", "name the column", long, LONG | {"target": None}),
    Mistake("a target that changes within an id", "x.csv", "one for each id",
            lambda h: long(h, y=["u", "v"] * 60), LONG),
    Mistake("times in words", "x.csv", "cannot be read as dates", lambda h: long(h, t=["noon"] * 120), LONG),
    Mistake("one column twice", "x.csv", "two roles", long, LONG | {"time_column": "id"}),
    Mistake("a time column without an id", "x.csv", "needs an id column", long, LONG | {"id_column": None}),
    Mistake("no column of numbers", "x.csv", "no numeric column besides",
            text("id,y\n" + "".join(f"{r},{'uv'[r % 2]}\n" for r in range(20)), "x.csv"), {"target": "y", "id_column": "id"}),
]  # fmt: skip
