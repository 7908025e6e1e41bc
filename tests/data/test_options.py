"""How data are to be read: what no data could meet is refused where it is said, in one line."""

import subprocess
import sys

import pytest

from advisor.data.options import FileForm, ReadingOptions
from advisor.errors import UserError
from advisor.runs.advice import AdviceOptions


@pytest.mark.parametrize("made", [ReadingOptions, AdviceOptions])
@pytest.mark.parametrize(
    ("option", "says"),
    [
        (
            {"kind": "sequences"},
            "kind is 'sequences' (did you mean 'sequence'?); expected table, image, ",
        ),
        ({"task": "ranking"}, "task is 'ranking'; expected binary, multiclass, regression"),
        ({"channels": 1}, "channels is '1'; expected first or last"),
        ({"types": {"a": "number"}}, "'number' (did you mean 'numeric'?); expected one of numeric, categorical, "),
        ({"types": ["a"]}, "types is ['a']; expected NAME: VALUE pairs"),
        ({"test_fraction": 1}, "test_fraction is 1; expected a number between 0 and 1, such as 0.2, or 0"),
        ({"seed": True}, "seed is True; expected a whole number from 0 to"),
        ({"seed": -1}, "seed is -1; expected a whole number from 0 to"),
        ({"time_column": ["a", "b"]}, "time_column is ['a', 'b']; expected the name of one column"),
        ({"sheet": 2}, "sheet is 2; expected a name"),
    ],
)
def test_what_no_data_could_meet_is_one_line(made, option, says):
    with pytest.raises(UserError) as caught:
        made(**option)
    assert says in str(caught.value)


def test_options_say_how_files_are_read_and_whether_rows_are_tested():
    assert ReadingOptions(encoding="gbk", sheet="More").form == FileForm("gbk", "More")
    assert ReadingOptions().tested and ReadingOptions(test="t.csv", test_fraction=0).tested
    assert not ReadingOptions(test_fraction=0).tested


def test_options_and_the_words_of_facts_load_no_arrays_or_tables():
    program = (
        "import sys, advisor.data.options, advisor.facts.schema\n"
        "print([m for m in ('numpy', 'polars', 'pandas') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
