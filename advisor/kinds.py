"""The words for what rows are and what is learnt of them, as files and commands have them. Everything else of
the product depends on it, and it on nothing."""

from typing import Literal, get_args

Kind = Literal["table", "image", "sequence", "mask"]
"""mask: images of which every point has a class."""
GridKind = Literal["image", "sequence", "mask"]
"""Those whose rows lie on a grid of points."""
TaskName = Literal["binary", "multiclass", "regression", "segmentation"]
ColumnType = Literal["numeric", "categorical", "boolean", "datetime", "text", "identifier", "constant"]
"""What a column of a table holds."""

COLUMN_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)
KINDS: tuple[Kind, ...] = get_args(Kind)
AXES: dict[Kind, int] = {"table": 0, "sequence": 1, "image": 2, "mask": 2}
"""Of the grid that a row lies on: none, time, or height and width."""
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)
CLASSIFICATIONS: tuple[TaskName, ...] = ("binary", "multiclass")
"""Tasks whose data have classes. (``tasks.py`` has all else of tasks, but needs NumPy.)"""
