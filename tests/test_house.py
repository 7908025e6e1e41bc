"""The rules of the house: what a task or a modality is stands in its table, and nowhere else is it asked for."""

import ast
import pickle
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import advisor
from advisor.boxes.lists import Boxes
from advisor.data.modalities import READ_MODALITIES
from advisor.dataset import Dataset, Features
from advisor.evaluation.by_target import JUDGED
from advisor.facts.targets import TARGET_MEASURES
from advisor.kinds import AXES, CLASSIFICATIONS, KINDS, TASK_NAMES
from advisor.rules import shipped
from advisor.splits import make_splits
from advisor.tasks import REGRESSION, SEGMENTATION, TASKS, UNLABELLED, Masks, TargetKind
from advisor.training.modalities import MODALITIES as TRAINED_MODALITIES
from advisor.training.targets import TARGETS
from advisor.workflows.modalities import MODALITY_OF

PACKAGE = Path(advisor.__file__).parent
ROOT = Path(__file__).parents[1]
NAMES = {*KINDS, *TASK_NAMES}
OF_ONE_MODALITY = {"Features", "Signals", "Table", "SignalSet", "TableSchema", "SignalSchema", "InputShape"}
OF_ONE_MODALITY |= {"BoxedImages", "DetectionShape", "BoxedInputs", "DetectionNetwork", "Scenes", "MaskSchema", "SceneShape", "SceneInputs", "DecoderNetwork", "SignalShape", "TableInputs", "SignalInputs", "TableNetwork", "SignalNetwork"}


def asked_for(tree):
    """(line, what) of each comparison with the name of a task or a modality, and of each isinstance of a class
    that one modality has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.MatchValue):
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            yield from ((node.lineno, text) for text in texts if isinstance(text, str) and text in NAMES)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            classes = [part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)]
            yield from ((node.lineno, name) for name in classes if name in OF_ONE_MODALITY)


def test_tasks_and_modalities_are_looked_up_and_not_asked_for():
    """Use the object of tasks.py, or a row of one of the three modalities.py."""
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {what}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, what in asked_for(ast.parse(path.read_text()))
    ]
    assert not found


def test_what_is_asked_for_is_found():
    program = 'if task == "regression" or kind in ("table", "image") or isinstance(x, Signals | Other): pass'
    found = {what for _, what in asked_for(ast.parse(program))}
    assert found == {"regression", "table", "image", "Signals"}


def swallowed(program):
    """Lines of the handlers of every exception that neither let it go on nor say why not, in a comment on their
    line or the one before."""
    lines = program.splitlines()
    for node in ast.walk(ast.parse(program)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)} if node.type else BROAD
        goes_on = any(isinstance(part, ast.Raise) and part.exc is None for part in ast.walk(node))
        said = [REASON.search(line) for line in lines[node.lineno - 2 : node.lineno]]
        if caught & BROAD and not goes_on and not any(said):
            yield node.lineno


BROAD = {"Exception", "BaseException"}
REASON = re.compile(r"#(?! noqa: \w+$).*\w+ \w+")


def test_whoever_catches_every_exception_says_why():
    found = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in swallowed(path.read_text())
    ]
    assert not found


def test_what_is_swallowed_without_a_reason_is_found():
    body = "try:\n    f()\n{handler}\n    pass\n"
    assert list(swallowed(body.format(handler="except Exception:  # noqa: BLE001"))) == [3]
    assert list(swallowed(body.format(handler="except (OSError, BaseException):"))) == [3]
    assert not list(swallowed(body.format(handler="except Exception:  # noqa: BLE001  its errors have no class")))
    assert not list(swallowed(body.format(handler="except BaseException:").replace("pass", "raise")))


def test_templates_ask_the_task():
    for path in (PACKAGE / "report" / "templates").iterdir():
        assert not [name for name in TASK_NAMES if f'"{name}"' in path.read_text()], path


def test_every_kind_of_rows_has_a_row_in_each_table():
    tables = (READ_MODALITIES, TRAINED_MODALITIES, MODALITY_OF, AXES, shipped.base_spaces())
    assert all(set(table) == set(KINDS) for table in tables)
    assert all(shipped.typical_facts(kind)["task"] for kind in KINDS)


def test_every_task_has_its_object_and_every_kind_of_target_a_row_in_each_table():
    assert tuple(TASKS) == TASK_NAMES and all(TASKS[name].name == name for name in TASK_NAMES)
    assert tuple(name for name in TASK_NAMES if TASKS[name].of_classes) == CLASSIFICATIONS
    assert all(set(table) == set(get_args(TargetKind)) for table in (TARGETS, JUDGED, TARGET_MEASURES))


def test_a_task_is_the_same_object_wherever_it_is_sent():
    for task in TASKS.values():
        assert pickle.loads(pickle.dumps(task)) is task and str(task) == task.name
    assert Dataset(features(3), np.zeros(3), "regression").task is REGRESSION


def test_the_page_on_architecture_names_at_most_five_files_for_an_addition_and_they_exist():
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.split("## What an addition touches")[1].split("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| a")][1:]
    assert len(rows) == 8
    for _, addition, changed, *_ in rows:
        files = re.findall(r"`([^`]+\.(?:py|md|json))`", changed)
        assert 1 <= len(files) <= 5 and all((ROOT / name).exists() for name in files), addition


# ------------------------------------------------------------------------- targets that are not one value a row


def features(rows):
    return Features(np.zeros((rows, 1)), np.zeros((rows, 0), np.int32), ("x",), (), ())


def test_masks_and_boxes_are_taken_row_by_row():
    masks = Masks(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))
    assert len(masks) == 3 and masks[np.array([2, 0])].values[:, 0, 0].tolist() == [8, 0]
    boxes = Boxes(
        np.arange(16.0).reshape(4, 4), np.array([5, 6, 7, 8]), np.array([1, 1, 4])
    )  # 1, 0 and 3 boxes
    assert len(boxes) == 3
    some = boxes[np.array([2, 1, 0])]
    assert some.codes.tolist() == [6, 7, 8, 5] and some.ends.tolist() == [3, 3, 4]
    assert some.corners[:, 0].tolist() == [4, 8, 12, 0]
    assert len(boxes[np.array([], np.int64)]) == 0 and boxes[1:].codes.tolist() == [6, 7, 8]
    assert np.array_equal(boxes[np.array([False, True, True])].ends, [0, 3])


def test_masks_and_boxes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="masks are uint8"):
        Masks(np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="corners have shape"):
        Boxes(np.zeros((2, 3)), np.zeros(2, np.int64), np.array([2]))
    with pytest.raises(ValueError, match="ends must increase up to the number of boxes"):
        Boxes(np.zeros((2, 4)), np.zeros(2, np.int64), np.array([2, 1]))


def test_a_data_set_may_have_a_mask_for_each_row_and_is_split_as_any_other():
    values = np.zeros((10, 2, 2), np.uint8)
    values[3] = UNLABELLED
    data = Dataset(features(10), Masks(values), SEGMENTATION, ("sky", "ground"))
    assert data.outputs == 2 and data.known.sum() == 9 and not data.known[3]
    for split in make_splits(data, scheme="kfold", folds=5, fraction=0.2, seed=0):
        part = data.part(split.validation)
        assert len(part) == len(part.target) == 2
