"""The words for what rows are and what is learnt of them, as files and commands have them. Everything else of
the product depends on it, and it on nothing."""

from typing import Literal, get_args

Kind = Literal["table", "image", "sequence"]
TaskName = Literal["binary", "multiclass", "regression"]

KINDS: tuple[Kind, ...] = get_args(Kind)
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)
CLASSIFICATIONS: tuple[TaskName, ...] = ("binary", "multiclass")
"""Tasks whose data have classes. (``tasks.py`` has all else of tasks, but needs NumPy.)"""
