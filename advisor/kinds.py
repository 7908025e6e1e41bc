"""The words for what rows are and what is learnt of them, as files and commands have them. Everything else of
the product depends on it, and it on nothing."""

from typing import Literal, get_args

Kind = Literal["table", "image", "sequence", "mask", "boxes"]
"""mask: images of which every point has a class. boxes: images with a list of boxes each."""
GridKind = Literal["image", "sequence", "mask", "boxes"]
"""Those whose rows lie on a grid of points."""
TaskName = Literal["binary", "multiclass", "regression", "segmentation", "detection"]
ColumnType = Literal["numeric", "categorical", "boolean", "datetime", "text", "identifier", "constant"]
"""What a column of a table holds."""

COLUMN_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)
KINDS: tuple[Kind, ...] = get_args(Kind)
AXES: dict[Kind, int] = {"table": 0, "sequence": 1, "image": 2, "mask": 2, "boxes": 2}
"""Of the grid that a row lies on: none, time, or height and width."""
MANY: dict[Kind, str] = {
    "table": "tables",
    "image": "images",
    "sequence": "sequences",
    "mask": "masks",
    "boxes": "boxes",
}
"""Several of a kind: in messages, and as the name of the file of their search space."""
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)
CLASSIFICATIONS: tuple[TaskName, ...] = ("binary", "multiclass")
"""Tasks whose data have classes. (``tasks.py`` has all else of tasks, but needs NumPy.)"""
