"""The report: what it shows, that data cannot run in it or steer a terminal (H1, H3), its size and
sameness (H2), that a browser shows it without an error, a request or a scroll bar, its Markdown, and
CSV that no spreadsheet runs (M5)."""

import base64
import copy
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from chromium import Browser, find_program
from damage import damaged_documents
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import advisor
from advisor.cli.main import _run
from advisor.cli.use import without_formulas
from advisor.console import echo, say
from advisor.documents import from_plain
from advisor.evaluation.by_target import diagnose
from advisor.evaluation.diagnosis import calibration, residuals
from advisor.evaluation.judgement import Diagnosis
from advisor.facts.schema import Facts
from advisor.files import read_json
from advisor.report import page
from advisor.report.wording import number, percent
from advisor.rules.provenance import LedgerEntry
from advisor.rules.recommendation import Recommendation
from advisor.rules.shipped import base_space
from advisor.runs.result import RunReport
from advisor.tasks import BINARY, MULTICLASS

FAST = {"epochs": 6, "validation": "holdout", "batch_size": 64}
SECTIONS = (
    *("head", "verdict", "findings", "configuration", "final", "errors", "search", "curves", "data"),
    *("reasons", "disagreements", "use", "reproduce"),
)
EVIL = (
    *(
        "<script>alert(1)</script>",
        "</script>",
        '" onerror="alert(1)',
        "{{7*7}}",
        "javascript:alert(1)",
        "a\u2028b",
        "\u202egnp",
    ),
    *(
        "|`*_ [x](http://evil.example)",
        "<img src=http://evil.example/x onerror=alert(1)>",
        "\x1b[2J\x07\nnew line",
        "x" * 10_000,
    ),
)
TARGET = "</title><script>alert(2)</script>"


class Page(HTMLParser):
    """Elements with their attributes, and the text, as a browser would see them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def ids(self):
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def table(rows=120):
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, rows))
    word = draw.choice(["u", "v", "w"], rows)
    frame = pl.DataFrame({"a": a, "b": b, "c": word, "y": np.where(a - b > 0, "yes", "no")})
    return frame.with_columns(
        pl.when(pl.int_range(rows) % 11 == 3).then(None).otherwise(pl.col("a")).alias("a")
    )


def typed(recommendation, facts, result, ledger=None):
    """The parts of a report.json as the page takes them."""
    return (
        Recommendation.from_dict(recommendation, base_space),
        Facts.from_dict(facts),
        None if result is None else RunReport.from_dict(result),
        ledger and {name: from_plain(LedgerEntry, entry) for name, entry in ledger.items()},
    )


def html(*kept):
    return page.render_html(*typed(*kept))


def markdown(*kept):
    return page.render_markdown(*typed(*kept))


def parts(run):
    document = read_json(run / "report.json")
    return [document[name] for name in ("recommendation", "facts", "result", "ledger")]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "run"
    advisor.tune(table(), "y", trials=3, executor="in-process", out=out, fixed=FAST)
    return out


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run in whose names everything is that a page or a terminal could trip over."""
    folder = tmp_path_factory.mktemp("hostile")
    frame = table().with_columns(*[pl.col("b").alias(name) for name in EVIL])
    frame = frame.with_columns(
        pl.col("c").replace({"u": EVIL[0], "v": EVIL[8]}),
        pl.col("y").replace({"yes": "=1+1", "no": "</script><script>"}),
    )
    frame.rename({"y": TARGET}).write_parquet(folder / "<b>.parquet")
    advisor.train(str(folder / "<b>.parquet"), TARGET, out=folder / "run", fixed=FAST)
    return folder / "run"


# ---------------------------------------------------------------------------------------------- what is shown


@pytest.mark.slow
def test_every_section_is_there_in_order(tuned):
    page = Page((tuned / "report.html").read_text())
    assert [name for name in page.ids() if name in SECTIONS] == list(SECTIONS)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels)), "headings in order"
    assert all("scope" in attributes for tag, attributes in page.elements if tag == "th")
    assert "It would be" in page.text and "Source: " in page.text, "flips and references of the ledger"
    for words in (
        "expected calibration error",
        "Too few trials for an estimate",
        "3 of 3 trials",
        "Confusion matrix",
        "yours",
    ):
        assert words in page.text


@pytest.mark.slow
def test_the_page_without_a_ledger_has_the_reasons(tuned):
    recommendation, facts, result, ledger = parts(tuned)
    plain, full = (Page(html(recommendation, facts, result, given)) for given in (None, ledger))
    assert plain.ids() == full.ids()
    assert "Source: " not in plain.text


@pytest.mark.slow
def test_shift_of_a_column_is_shown_where_it_was_measured(tuned):
    recommendation, facts, result, _ = parts(tuned)
    facts["columns"][0] |= {"shift": {"psi": 0.31, "distance": 0.2, "new_level_share": 0.0}}
    assert (
        "shift to the rows compared: PSI 0.31, distance 0.2" in Page(html(recommendation, facts, result)).text
    )


@pytest.mark.slow
def test_where_and_when_trials_ran_is_drawn(tuned):
    recommendation, facts, result, _ = parts(tuned)
    common = {"attempts": 1, "micro_batch": 64, "memory": 4e9, "peak_memory": 3e9}
    result["search"]["packing"] = [
        {"number": 0, "began": 0.0, "ended": 6.0, "worker": "pid 1", "device": "n1 10.0.0.1 gpu 0", **common},
        {"number": 1, "began": 1.0, "ended": 4.0, "worker": "pid 2", "device": "n1 10.0.0.1 gpu 0", **common},
        {
            "number": 2,
            "began": 4.0,
            "ended": 10.0,
            "worker": "pid 2",
            "device": "n1 10.0.0.1 gpu 0",
            **common,
        },
    ]
    said = "workers were busy 75 % of the time"
    page = Page(html(recommendation, facts, result))
    assert said in page.text and said in markdown(recommendation, facts, result)
    drawn = {
        attributes["aria-label"]
        for tag, attributes in page.elements
        if tag == "svg" and "aria-label" in attributes
    }
    assert {"Which worker ran which trial", "Memory of the GPUs"} <= drawn
    assert "worker 2, gpu 0" in page.text and "gpu 0, expected" in page.text
    assert "pid 2" not in page.text and "10.0.0.1" not in page.text, "nothing of the machine"
    del result["search"]["packing"]
    assert "workers were busy" not in Page(html(recommendation, facts, result)).text, (
        "a run of before it was kept"
    )


@pytest.mark.slow
def test_the_training_loss_is_kept_and_drawn_beside_the_validation_loss(tuned):
    result = RunReport.from_dict(parts(tuned)[2])
    complete = [trial for trial in result.trials if trial.end == "complete"]
    for trial in complete:
        assert [epoch for epoch, _ in trial.train_curve] == [epoch for epoch, _ in trial.curve]
    assert all(0 < loss < 5 for trial in complete for _, loss in trial.train_curve)
    trained = [one for one in result.final.contenders if one.name != "blend"]
    for one in trained:
        assert len(one.curves) == 2, "one for each partition"
        assert [e for e, _ in one.curves[0].training] == [e for e, _ in one.curves[0].validation] != []
    text = (tuned / "report.html").read_text()
    assert "recommendation, training:" in text and "Learning curves of the final" in text


@pytest.mark.slow
def test_the_command_is_complete_and_names_no_folder(tuned):
    recommendation, facts, result, _ = parts(tuned)
    recommendation["data"] |= {"source": "/home/me/data.csv", "test": "/mnt/test.csv", "encoding": "cp1252"}
    recommendation["data"] |= {"cost": {"no": {"yes": 1.0}, "yes": {"no": 5.0}}}
    result["search"]["options"] = {"strategy": "staged", "adapt": False, "trial_time_limit": 30.0}
    result["time_limit"] = 600.0
    text = Page(html(recommendation, facts, result)).text
    command = re.search(r"^advisor tune data.csv .*$", text, re.MULTILINE).group()
    for part in (
        *(
            "--test test.csv",
            "--encoding cp1252",
            "--cost COSTS.csv",
            "--trials 3",
            "--strategy staged",
            "--no-adapt",
        ),
        *("--trial-time-limit 30", "--time-limit 600", "--fixed epochs=6"),
    ):
        assert part in command, part
    assert "/home/me" not in text and "/mnt" not in text


@pytest.mark.slow
def test_a_better_baseline_is_sentence_one(tuned):
    recommendation, facts, result, _ = parts(tuned)
    linear = next(entry for entry in result["test"]["results"] if entry["name"] == "linear")
    linear |= {"loss": 0.0, "difference_to_network": {"mean": -1.0, "standard_error": 0.1}}
    text = Page(html(recommendation, facts, result)).text
    assert re.search(r"Verdict\s+A network is not the best tool here: the linear baseline", text)


@pytest.mark.slow
def test_the_report_again_in_each_format(tuned, tmp_path, capfd):
    assert _run(["report", str(tuned)]) == 0
    text = capfd.readouterr().out
    shown = (tuned / "report.html").read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", shown)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == titles, "the same sections"
    assert _run(["report", str(tuned), "--format", "html", "--out", str(tmp_path / "r.html")]) == 0
    assert (tmp_path / "r.html").read_text() == shown
    capfd.readouterr()
    assert _run(["report", str(tuned), "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out) == read_json(tuned / "report.json")
    assert _run(["report", str(tmp_path / "none")]) == 2


# ------------------------------------------------------------------------------------- H1: data are only text


@pytest.mark.slow
def test_data_make_no_element_and_no_attribute(hostile):
    text = (hostile / "report.html").read_text()
    page = Page(text)
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not {tag for tag, _ in page.elements} & {
        "img",
        "iframe",
        "object",
        "link",
        "form",
        "base",
        "embed",
    }
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "xlink:href", "action"):
            value = attributes.get(name) or "#"
            assert value.startswith("#") or (tag == "a" and value.startswith("https://")), (tag, value)
    assert not re.search(r"url\((?!#|['\"]?#)", text)
    assert EVIL[0] in page.text and "{{7*7}}" in page.text
    assert not set(text) & set("\u2028\u202e\x1b\x07"), "nothing invisible"
    assert "x" * 700 not in text
    policy = next(a["content"] for _, a in page.elements if "default-src" in a.get("content", ""))
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        policy
        == f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    )


@pytest.mark.slow
def test_data_break_no_markdown_table(hostile):
    lines = markdown(*parts(hostile)).splitlines()
    assert not any("<script>" in line.replace("\\<", "") for line in lines if line[:4] != "    "), (
        "but in a code block"
    )
    heads = [i for i, line in enumerate(lines) if re.fullmatch(r"\|[-:|]+\|", line)]
    for head in heads:
        width = len(re.findall(r"(?<!\\)\|", lines[head]))
        for line in lines[head + 1 :]:
            if not line.startswith("|"):
                break
            assert len(re.findall(r"(?<!\\)\|", line)) == width, line


# ----------------------------------------------------------------------------------------- H2: size, sameness


@pytest.mark.slow
def test_a_large_run_is_a_small_page_and_the_same_bytes(tuned, tmp_path):
    recommendation, facts, result, ledger = parts(tuned)
    facts["columns"] = [{**facts["columns"][i % 3], "name": f"column {i} {'x' * 10_000}"} for i in range(230)]
    trial = {**result["search"]["trials"][0], "origin": "search"}
    curve = [[epoch, 1 / epoch] for epoch in range(1, 101)]
    result["search"]["trials"] = [
        {**trial, "number": i, "value": 1 + 1 / (i + 1), "curve": curve} for i in range(1000)
    ]
    placed = {
        "attempts": 1,
        "micro_batch": 64,
        "memory": 4e9,
        "peak_memory": 3e9,
        "device": "n1 10.0.0.1 gpu 0",
    }
    result["search"]["packing"] = [
        {"number": i, "began": float(i), "ended": i + 4.0, "worker": f"pid {i % 4}", **placed}
        for i in range(10_000)
    ]
    text = html(recommendation, facts, result, ledger)
    assert len(text.encode()) < 2_000_000
    (tmp_path / "report.json").write_text(json.dumps([recommendation, facts, result, ledger]))
    code = (
        "import json, sys; from test_report import html;"
        "sys.stdout.buffer.write(html(*json.load(open(sys.argv[1]))).encode())"
    )
    again = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "report.json")],
        capture_output=True, check=True, timeout=120, env=os.environ | {"PYTHONHASHSEED": "1"},
    )  # fmt: skip
    assert again.stdout == text.encode()


# --------------------------------------------------------------------------------------------- a real browser


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1600])
@pytest.mark.parametrize("run", ["tuned", "hostile"])
def test_a_browser_shows_every_section_of_it(run, width, request, tmp_path):
    program = find_program()
    if program is None:
        pytest.skip("there is no chromium or chrome on PATH")
    browser = Browser(program, tmp_path / "home")
    try:
        page = browser.open((request.getfixturevalue(run) / "report.html").as_uri(), width=width)
        assert (page.complaints, len(page.asked)) == ([], 1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "no sideways scrolling"
        assert page.evaluate("document.documentElement.className") == "js", "the policy lets our script run"
        high = "[...document.querySelectorAll('header, section')].filter((one) => one.offsetHeight > 20)"
        assert page.evaluate(f"{high}.map((one) => one.id)") == list(SECTIONS)
    finally:
        browser.close()


# ------------------------------------------------------------------------------------------- H3: the terminal


@pytest.mark.slow
def test_names_stay_within_their_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    forged = "a\nerror: forged\r\x1b[2J\x9b31m"
    frame = table().rename({"a": forged})
    frame.with_columns(pl.lit("k").alias("constant\nerror: forged")).write_parquet("d.parquet")
    assert _run(["recommend", "d.parquet", "--target", "y", "--out", "r"]) == 0
    assert _run(["recommend", "d.parquet", "--target", forged + "?"]) == 2
    assert _run(["report", "r"]) == 0
    assert _run(["recommend", "d.parquet", "--target", "y", "--out", "r", "--json"]) == 0
    out, err = capfd.readouterr()
    assert not set(out + err) & set("\x1b\x9b\r")
    assert not any(line.startswith("error: forged") for line in (out + err).splitlines())


def test_one_line_is_one_line(capsys):
    echo("a\nb\x1b[0m", "c")
    say("d\u202e\ne")
    assert capsys.readouterr() == ("a\\nb\\x1b[0m\nc\n", "d\\u202e\\ne\n")


# ---------------------------------------------------------------------------------------------------- M5: CSV


def test_formulas_are_quoted_and_numbers_are_not():
    frame = pl.DataFrame(
        {"prediction": ["=1", "+x", "-1+1", "@x", "\tx", "\rx", "a=1", None], "probability_=1": [-1.5] * 8}
    )
    safe, quoted = without_formulas(frame)
    assert safe["prediction"].to_list() == ["'=1", "'+x", "'-1+1", "'@x", "'\tx", "'\rx", "a=1", None]
    assert safe["probability_=1"].to_list() == [-1.5] * 8
    assert quoted == 6
    labels = pl.DataFrame({"prediction": ["-1", "+1", "-", "+", "-1.5e-3", "-5%"]})
    assert without_formulas(labels)[0].equals(labels)
    numbers = pl.DataFrame({"prediction": [-1.5, 2.0]})
    assert without_formulas(numbers)[0].equals(numbers)


@pytest.mark.slow
def test_predict_quotes_unless_raw(hostile, tmp_path, capfd):
    rows = str(hostile.parent / "<b>.parquet")
    assert _run(["predict", str(hostile), rows]) == 0
    safe = capfd.readouterr()
    assert _run(["predict", str(hostile), rows, "--raw"]) == 0
    raw = capfd.readouterr()
    assert "\n'=1+1," in safe.out and "got a leading '" in safe.err
    assert "\n=1+1," in raw.out and "leading" not in raw.err


# ------------------------------------------------------------------------------------------------ diagnosis


def test_honest_probabilities_are_calibrated():
    draw = np.random.default_rng(0)
    p = draw.uniform(0, 1, 20_000)
    target = (draw.uniform(size=20_000) < p).astype(np.int64)
    honest, sure = (
        calibration(target, np.column_stack([1 - q, q])) for q in (p, np.where(p > 0.5, 1.0, 0.0))
    )
    assert honest.expected_error < 0.02
    assert sure.expected_error == pytest.approx(0.25, abs=0.02)
    assert sum(b.rows for b in honest.bins) == 20_000
    [only] = sure.bins
    assert (only.rows, only.probability, only.right) == (20_000, 1.0, pytest.approx(0.75, abs=0.02))


def test_confusions_and_residuals():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    found = diagnose(BINARY, 2, np.array([0, 1, 1]), scores, scores.argmax(axis=1))
    assert found.confusion == ((1, 0), (1, 1))
    assert not diagnose(MULTICLASS, 30, np.array([0]), np.full((1, 30), 1 / 30), np.array([0])).confusion
    alike = residuals(np.zeros(3), np.zeros(3))
    assert alike == Diagnosis(residual_quantiles=(0.0,) * 5, pairs=((0.0, 0.0),) * 3)
    histogram = residuals(np.zeros(1000), np.linspace(-1, 1, 1000)).residual_histogram
    assert len(histogram.counts) == 20 and sum(histogram.counts) == 1000
    far = np.append(np.linspace(-1, 1, 998), [50, 60])
    outlying = residuals(np.zeros(1000), far).residual_histogram
    beyond = outlying.below + outlying.above
    assert sum(outlying.counts) + beyond == 1000 and beyond >= 10 and outlying.most == 60


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.0004, "< 0.1 %"), (0.123456, "12.3 %"), (1.0, "100 %")]
)
def test_a_small_share_is_not_none(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1340.2, "1,340"), (0.12345, "0.123"), (12, "12"), (True, "True"), (1e-7, "1e-7")]
)
def test_three_digits(value, text):
    assert number(value) == text


def test_levels_and_the_target_are_bounded():
    frame = table().with_columns((pl.col("c") + "z" * 5000).alias("c"))
    facts = advisor.measure(frame, "y").to_dict()
    assert all(len(level) <= 60 for level, _ in next(c for c in facts["columns"] if c["name"] == "c")["top"])
    assert sum(count for _, count in facts["target"]["classes"]) == facts["values"]["rows"]
    numbers = advisor.measure(frame.with_columns(y=pl.col("b") * 7), "y").to_dict()
    assert len(numbers["target"]["histogram"]["counts"]) == 20


# ---------------------------------------------------------------------------------------------- missing parts

OPTIONAL = tuple(
    tuple(path.split("."))
    for path in (
        *("facts.target", "facts.samples", "facts.columns.*.histogram", "facts.columns.*.median"),
        *("facts.columns.*.top", "facts.columns.*.shift", "result.reading", "result.time_limit"),
        *("result.search.packing", "result.search.adjustments", "result.search.curve_advice"),
        *("result.search.options", "result.search.trials.*.train_curve", "result.train_curve"),
        *("result.final.contenders.*.curves",),
        *("result.search.trials.*.reading", "result.final.incumbent", "result.final.confirmed"),
        *("result.final.failed", "result.final.fewer_networks", "result.final.epochs_on_all_rows"),
        *("result.final.without_latest_rows", "result.test.results", "result.test.predictions"),
        *("result.test.predictions.calibration", "result.test.predictions.confusion"),
        *("result.test.predictions.residual_quantiles", "result.test.predictions.residual_histogram"),
        *("result.test.left_out", "result.test.mistakes", "result", "ledger"),
    )
)
"""Parts that a run may lack: they could not be measured or drawn, or its version did not know them."""


def without_part(document, path):
    """Take the part out where it is there; * is every entry of a list."""
    first, *rest = path
    if not rest:
        if first in ("result", "ledger"):
            document[first] = None
        elif document is not None:
            document.pop(first, None)
        return
    within = document if first == "*" else [(document or {}).get(first) or {}]
    for inner in within:
        without_part(inner, rest)


def regression(y):
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 120))
    return pl.DataFrame({"a": a, "b": b, "y": y(a - b + 0.1 * draw.normal(size=120))})


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("regression") / "run"
    advisor.train(regression(lambda z: z), "y", out=out, fixed=FAST, progress=False)
    return out


def whole_without(run, monkeypatch):
    """Whatever parts are absent, and whatever charts could not be drawn, all three forms are whole."""
    kept = parts(run)
    _, facts, result, _ = typed(*kept)
    drawn = page._charts(result, facts)
    charts_there = {}
    monkeypatch.setattr(page, "_charts", lambda result, facts: charts_there)

    @settings(max_examples=5, deadline=None)
    @given(st.sets(st.sampled_from(OPTIONAL)), st.sets(st.sampled_from(sorted(drawn))))
    @example(set(OPTIONAL) - {("result",)}, set())
    @example(set(), set())
    def renders(absent, there):
        document = copy.deepcopy(
            dict(zip(("recommendation", "facts", "result", "ledger"), kept, strict=True))
        )
        for path in sorted(absent):
            without_part(document, path)
        if ("result", "search", "packing") in absent:
            there = there - {"packing"}
        charts_there.clear()
        charts_there.update({name: drawn[name] for name in there})
        given_parts = [document[name] for name in ("recommendation", "facts", "result", "ledger")]
        whole = Page(html(*given_parts))
        json.dumps(document, allow_nan=False)
        wanted = [name for name in SECTIONS if document["result"] or name not in OF_A_RESULT]
        assert [name for name in whole.ids() if name in SECTIONS] == wanted
        if document["result"]:
            for name, words in INSTEAD.items():
                missing = name in drawn and name not in there
                assert not missing or words in whole.text or ("result", "test", "results") in absent, name
        assert "## Verdict" in markdown(*given_parts)

    renders()


OF_A_RESULT = {"search", "final", "curves", "errors"}
INSTEAD = {
    "history": "no trial was trained to its end",
    "curves": "Too few epochs to draw",
    "final": "the winner was compared with nothing",
    "test": "nothing else was scored",
}
"""What the page says where a chart is absent."""


def test_whatever_part_of_a_training_is_missing_the_page_is_whole(measured, monkeypatch):
    """Regression: a target without a histogram broke the page, and with it the run."""
    whole_without(measured, monkeypatch)


@pytest.mark.slow
def test_whatever_part_of_a_search_is_missing_the_page_is_whole(tuned, monkeypatch):
    whole_without(tuned, monkeypatch)


def test_no_fact_that_was_not_measured_breaks_the_page(measured):
    recommendation, facts, result, ledger = parts(measured)
    kept = {"rows", "rows_test", "task", "kind"}
    facts["values"] = {name: value if name in kept else None for name, value in facts["values"].items()}
    assert markdown(recommendation, facts, result, ledger) and html(recommendation, facts, result, ledger)


@pytest.mark.parametrize(
    "y",
    [
        lambda z: 1e15 + 1e3 * z,
        lambda z: 1e-12 * z,
        lambda z: 1e15 * z,
        lambda z: np.where(np.arange(120) == 3, 5.0, 1.0),
    ],
    ids=["far from 0", "tiny", "huge", "all but one equal"],
)
def test_a_target_of_any_offset_and_scale_trains_as_well(y, measured, tmp_path):
    run = advisor.train(
        regression(y), "y", task="regression", out=tmp_path / "run", fixed=FAST, progress=False
    )
    assert (tmp_path / "run" / "report.html").is_file()
    r2, standard = (
        found["test"]["results"][0]["r2"] for found in (run.document, read_json(measured / "result.json"))
    )
    if y(np.zeros(120)).std() == 0:  # else nothing can be learned
        assert r2 == pytest.approx(standard, abs=0.01)


def test_a_target_whose_squares_are_0_is_refused():
    with pytest.raises(advisor.UserError, match="squares are too small for a float; use another unit"):
        advisor.recommend(regression(lambda z: 1e-200 * z), "y")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("values", "rows"), {"a": [1]}),
        (("values", "features"), ...),
        (("values",), {}),
        (("values", "target.skew"), float("nan")),
        (("values", "columns.constant"), [1]),
        (("values", "sequence.length"), "long"),
        (("columns", 0, "missing_share"), {}),
        (("columns", 0, "q05"), "low"),
        (("columns", 0, "distinct"), ...),
        (("columns", 0, "histogram", "counts"), ["a"]),
        (("columns", 0), "text"),
        (("target", "histogram", "low"), ...),
        (("target",), [1]),
        (("sampled",), {"rows": 5}),
    ],
)
def test_damaged_facts_are_one_line_and_no_bug(measured, tmp_path, capfd, path, value):
    """A flipped bit in a key (...: as if it were absent), or a value of another type."""
    shutil.copytree(measured, tmp_path / "run")
    document = read_json(tmp_path / "run" / "facts.json")
    *inner, last = path
    place = document
    for key in inner:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    (tmp_path / "run" / "facts.json").write_text(json.dumps(document))
    capfd.readouterr()
    assert _run(["report", str(tmp_path / "run"), "--format", "markdown"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and "facts.json is damaged" in err and err.count("\n") == 1


def test_a_recommendation_without_its_seed_is_one_line_and_no_bug(measured, tmp_path, capfd):
    shutil.copytree(measured, tmp_path / "run")
    file = tmp_path / "run" / "recommendation.yaml"
    file.write_text(re.sub(r"^  seed: .*\n", "", file.read_text(), flags=re.MULTILINE))
    capfd.readouterr()
    assert _run(["report", str(tmp_path / "run")]) == 2
    assert "recommendation.yaml: data.seed is missing" in capfd.readouterr().err


@pytest.mark.parametrize("winner", ["trial 2", "blend", "recommendation"])
def test_the_configuration_is_the_winners_and_a_blend_is_taken_apart(winner, tuned, tmp_path, capfd):
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    document = json.loads((run / "result.json").read_text())
    advised = document["configuration"]
    other = {**advised, "learning_rate": 0.0123, "width": 99}
    row = {**document["final"]["contenders"][0], "searched_loss": 0.1, "configurations": [advised]}
    difference = {"mean": -0.1, "standard_error": 0.01, "high": -0.05}
    document["final"] |= {
        "winner": winner,
        "contenders": [
            {**row, "name": "recommendation", "difference": None},
            {**row, "name": "trial 2", "configurations": [other], "difference": difference},
            {**row, "name": "blend", "configurations": [advised, other], "difference": difference},
        ],
    }
    (run / "result.json").write_text(json.dumps(document))
    assert _run(["report", str(run), "--format", "json"]) == 0
    model = json.loads(capfd.readouterr().out)["model"]
    changes = [["learning_rate", number(advised["learning_rate"]), "0.0123"], ["width", "64", "99"]]
    wanted = {"trial 2": [("trial 2", 1)], "recommendation": [("recommendation", 1)]}
    wanted["blend"] = [("recommendation", 0.5), ("trial 2", 0.5)]
    assert [(member["name"], member["share"]) for member in model] == wanted[winner]
    for member in model:
        assert sorted(member["changes"]) == (sorted(changes) if member["name"] == "trial 2" else [])
    assert _run(["report", str(run)]) == 0
    text = capfd.readouterr().out
    assert ("0.0123 (recommended" in text) == (winner != "recommendation")
    assert ("blend of 2 configurations" in text) == (winner == "blend")
    assert "| 0 | recommendation |" in text and "| 1 | library default |" in text


ONE_OF_TEN = st.integers(0, 9).map(lambda number: number == 9)
"""Drawing a page takes a second."""


@pytest.mark.parametrize("file", ["result.json", "search.json", "facts.json"])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_file_of_a_run_is_never_a_bug_of_ours(file, tuned, tmp_path, capfd, data):
    run = tmp_path / "run"
    shutil.copytree(tuned, run, dirs_exist_ok=True)
    whole = json.loads((run / file).read_text())
    (run / file).write_text(json.dumps(data.draw(damaged_documents(whole))))
    page = [["report", str(run), "--format", "html"]] if data.draw(ONE_OF_TEN) else []
    for command in (["report", str(run)], ["status", str(run)], ["why", str(run)], *page):
        code = _run(command)
        err = capfd.readouterr().err
        assert code in (0, 2) and "a bug in advisor" not in err, (command, err)
