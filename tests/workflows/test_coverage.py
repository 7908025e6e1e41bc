"""Coverage of the rule book over data sets: what counts as a set, what is
pointed out, and what one bad set does."""

import json

import numpy as np
import polars as pl
import pytest

from advisor.cli.main import _run
from advisor.errors import UserError
from advisor.workflows.rule_coverage import cover

RULE = """\
format: 1
rules:
- id: always-there
  title: It always fires
  topic: optimization
  applies_to: [table]
  strength: may
  when: true
  then: {default: {momentum: 0.8}}
  because: It is so.
  why: It is so everywhere.
  UNIVERSALreferences: [{cite: Somebody, url: 'https://example.org/x', says: it is so}]
  evidence: folklore
  examples: [{expect: {momentum: 0.8}}]
"""


@pytest.fixture
def sets(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(5):
        folder = tmp_path / "sets" / f"set{number}"
        folder.mkdir(parents=True)
        data = pl.DataFrame(
            {"a": rng.normal(size=80), "b": rng.integers(0, 9, 80), "y": rng.choice(["u", "v"], 80)}
        )
        data[:60].write_csv(folder / "train.csv")
        data[60:].write_csv(folder / "test.csv")
        (folder / "meta.yaml").write_text("target: y\n")
    return tmp_path / "sets"


def pack(tmp_path, universal):
    folder = tmp_path / "pack"
    folder.mkdir()
    text = f"universal: {universal}\n  " if universal else ""
    (folder / "rule.yaml").write_text(RULE.replace("UNIVERSAL", text))
    return folder


def test_the_shipped_rules_say_why_they_hold_everywhere_and_the_advice_stands(sets):
    result = cover([sets])
    assert [one.name for one in result.sets] == [f"set{number}" for number in range(5)]
    assert result.problems == () and result.failed == ()
    fired = set(result.sets[0].fired)
    assert "depth-for-tiny-tables" in fired and "depth-for-large-tables" in result.never
    assert "periodic_sigma" in result.untouched
    assert fired & set(result.never) == set()
    everywhere = {rule.id for rule in result.rules if len(result.fired_on(rule)) == 5}
    # these five are alike: what fires on all of them is pointed out unless it says why
    assert set(result.unexplained) == {
        rule.id for rule in result.rules if rule.id in everywhere and not rule.universal
    }


def test_a_rule_counts_that_made_the_table_be_read_again(sets):
    """The column by which all test rows are later becomes the time column, and is no input any more."""
    folder = sets / "set0"
    for name, first in (("train", 2000), ("test", 2010)):
        rows = pl.read_csv(folder / f"{name}.csv")
        rows.with_columns(year=first + pl.int_range(pl.len()) // 6).write_csv(folder / f"{name}.csv")
    [covered] = cover([folder]).sets
    assert {"test-rows-are-later", "separating-columns"} <= set(covered.fired)
    assert set(covered.fired).isdisjoint(covered.unjudged)


@pytest.mark.parametrize(
    ("count", "universal", "flagged"), [(5, "", True), (4, "", False), (5, "It must.", False)]
)
def test_a_rule_that_fires_everywhere_must_say_why(sets, tmp_path, count, universal, flagged):
    folders = [sets / f"set{number}" for number in range(count)]
    result = cover(folders, rules=[pack(tmp_path, universal)])
    assert ("always-there" in result.unexplained) is flagged
    assert "momentum" not in result.untouched + result.untouched_here


def test_the_test_target_is_not_looked_at(sets):
    before = cover([sets]).to_dict()
    for file in sets.glob("*/test.csv"):
        data = pl.read_csv(file)
        data.with_columns(y=data["y"].reverse()).write_csv(file)
    assert cover([sets]).to_dict() == before


def test_a_set_that_cannot_be_read_is_one_line_and_the_others_go_on(sets, capfd):
    (sets / "set1" / "meta.yaml").write_text("target: nothing\n")
    (sets / "set2" / "meta.yaml").unlink()
    (sets / "set3" / "train.csv").write_text("")
    (sets / "set4" / "meta.yaml").write_text("target: 5\n")
    assert _run(["rules", "coverage", str(sets), str(sets / "nowhere"), "--json"]) == 0
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert document["sets"] == ["set0"] and len(document["failed"]) == 5
    lines = err.splitlines()
    assert len(lines) == 5 and all(line.startswith("left out: ") and str(sets) in line for line in lines)


def test_a_file_needs_a_target(sets):
    file = sets / "set0" / "train.csv"
    assert [one.name for one in cover([file], "y").sets] == ["train"]
    with pytest.raises(
        UserError, match=r"no data set could be read: .*train\.csv: name its target with --target"
    ):
        cover([file])


def test_no_set_at_all_is_a_user_error(tmp_path, capfd):
    assert _run(["rules", "coverage", str(tmp_path)]) == 2
    assert capfd.readouterr().err.count("\n") == 1
