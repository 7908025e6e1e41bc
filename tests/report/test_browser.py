"""Reports in a real Chromium: axe finds nothing serious, nothing is asked of a network, nothing moves or overflows,
and screenshots for desktop, phone, dark and paper show what they should.

Screenshots are judged by facts (background, ink on every screen, width, texts and legends that touch nothing), not
by stored pictures: those change with every font and release of a browser, and then say that, and not what is wrong.
"""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from chromium import Browser, find_program

import advisor

FAST = {"epochs": 6, "validation": "holdout", "batch_size": 64}
KINDS = ("classification", "regression", "images", "series")
VIEWS = {
    "desktop": {},
    "phone": {"width": 360, "height": 780},
    "dark": {"dark": True},
    "paper": {"paper": True, "width": 794, "height": 1123},
}
SCALE = 0.5
"""Of screenshots: blank screens and backgrounds are seen in a quarter of the pixels."""
SCREENS = 2
"""Within this many screens a reader knows what to use, how good it is, against what, and what to do next."""


def table(rows=120):
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, rows))
    word = draw.choice(["u", "v", "w"], rows)
    return pl.DataFrame({"a": a, "b": b, "c": word, "y": np.where(a - b > 0, "yes", "no"), "n": a - b})


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The path of a report of each kind, made when it is asked for first."""
    folder, made = tmp_path_factory.mktemp("reports"), {}
    draw = np.random.default_rng(0)
    y = np.repeat([0, 1], 40)

    def classification(out):
        advisor.tune(table().drop("n"), "y", trials=3, executor="in-process", out=out, fixed=FAST)

    def regression(out):
        advisor.train(table().drop("y"), "n", out=out, fixed=FAST, progress=False)

    def images(out):
        pixels = draw.integers(0, 120, size=(80, 12, 12)) + 100 * y[:, None, None]
        advisor.train(pixels.astype(np.uint8), y, out=out, fixed={"epochs": 2}, progress=False)

    def series(out):
        lines = draw.normal(size=(80, 1, 32)) + y[:, None, None] * np.sin(np.arange(32) / 3)
        advisor.train(lines, y, out=out, fixed={"epochs": 2}, progress=False)

    def of(kind) -> Path:
        if kind not in made:
            locals_ = {"classification": classification, "regression": regression}
            (locals_ | {"images": images, "series": series})[kind](folder / kind)
            made[kind] = folder / kind / "report.html"
        return made[kind]

    return of


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_program()
    if program is None:
        pytest.skip("there is no chromium or chrome on PATH")
    started = Browser(program, tmp_path_factory.mktemp("home"))
    yield started
    started.close()


CHARTS = """(() => {
  for (const part of document.querySelectorAll("details")) part.open = true;
  const faults = [], apart = (a, b) => a.right < b.left + 1.5 || b.right < a.left + 1.5
    || a.bottom < b.top + 1.5 || b.bottom < a.top + 1.5;
  for (const chart of document.querySelectorAll("svg[role=img]")) {
    const name = chart.getAttribute("aria-label"), whole = chart.getBoundingClientRect();
    const texts = [...chart.querySelectorAll("text")]
      .filter((text) => text.textContent.trim() && !(text.getAttribute(
          "transform"
      ) ?? "").includes("rotate(-30"))
      .map((text) => [text.textContent.trim(), text.getBoundingClientRect()]);
    texts.forEach(([words, box], i) => {
      if (box.left < whole.left - 2 || box.right > whole.right + 2) faults.push(`${name}: ${words} is cut`);
      for (const [others, other] of texts.slice(i + 1))
        if (!apart(box, other)) faults.push(`${name}: ${words} touches ${others}`);
    });
    for (const legend of chart.querySelectorAll(".legend"))
      for (const mark of chart.querySelectorAll("[data-tip], [clip-path]"))
        if (!legend.contains(mark) && !apart(legend.getBoundingClientRect(), mark.getBoundingClientRect()))
          faults.push(`${name}: the legend lies on the data`);
  }
  return faults;
})()"""


def ink(picture):
    """The share of pixels that are not of the page's background."""
    return (np.abs(picture.astype(int) - picture[2, 2].astype(int)).max(axis=2) > 12).mean()


@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_screenshot_shows_a_whole_page(kind, view, report, browser):
    address = report(kind).as_uri()
    page = browser.open(address, **VIEWS[view])
    try:
        fetched = [url for url in page.asked if not url.startswith("data:")]
        assert fetched == [address], "nothing is asked of a network"
        assert page.complaints == []
        assert page.evaluate("window.shifts") == [], "nothing moves after the first paint"
        assert page.evaluate("document.documentElement.scrollWidth") <= page.width, "no sideways scrolling"
        if view != "dark":  # which moves nothing
            assert page.evaluate(CHARTS) == []
        picture = page.picture(scale=SCALE)
    finally:
        page.close()
    assert picture[2, 2].mean() < 60 if view == "dark" else picture[2, 2].mean() > 240
    screen = int(SCALE * page.height)
    screens = range(0, len(picture) - screen // 2, screen)
    assert min(ink(picture[top : top + screen]) for top in screens) > 0.005, "no screen is blank"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_serious(kind, report, browser):
    import axe_core_python

    source = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
    for dark in (False, True):
        page = browser.open(report(kind).as_uri(), dark=dark)
        try:
            page.evaluate('document.querySelectorAll("details").forEach((part) => { part.open = true; })')
            page.evaluate(source + "; null")
            only = ', runOnly: ["color-contrast"]' if dark else ""
            asked = f'axe.run({{resultTypes: ["violations"]{only}}}).then((all) => all.violations)'
            found = page.evaluate(asked)
        finally:
            page.close()
        grave = [
            (one["id"], node["html"][:200], node["failureSummary"])
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
        assert grave == [], f"dark: {dark}"


@pytest.mark.slow
@pytest.mark.parametrize("view", ["desktop", "phone"])
def test_two_screens_say_what_to_use_how_good_it_is_and_what_is_next(view, report, browser):
    page = browser.open(report("classification").as_uri(), **VIEWS[view])
    try:
        ends = page.evaluate(
            """[...document.querySelectorAll("#verdict p, #verdict table, #findings h2")]
            .map((part) => [part.textContent.slice(0, 60), part.getBoundingClientRect().bottom])"""
        )
    finally:
        page.close()
    texts = " ".join(text for text, _ in ends)
    assert "Next: " in texts and "Look at this first" in texts
    assert max(end for _, end in ends) <= SCREENS * page.height, ends


@pytest.mark.slow
def test_a_table_sorts_by_a_key_and_the_trials_are_filtered_with_their_marks(report, browser):
    page = browser.open(report("classification").as_uri())
    try:
        page.evaluate("document.querySelector('#trials').closest('details').open = true")
        first = "[...document.querySelectorAll('#trials tbody tr:not([hidden]) td:first-child')].map((c) => c.textContent)"
        assert page.evaluate(first) == ["0", "1", "2"]
        press = (
            "document.querySelector('#trials th').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}))"
        )
        page.evaluate(f"{press}, {press}")
        assert page.evaluate(first) == ["2", "1", "0"]
        page.evaluate(
            "{ const field = document.querySelector('#filter-trials'); field.value = 'library';"
            "field.dispatchEvent(new Event('input')); }"
        )
        assert page.evaluate(first) == ["1"]
        hidden = (
            "[...document.querySelectorAll('.plot circle[data-trial]')].filter((m) => m.style.display).length"
        )
        assert page.evaluate(hidden) > 0
    finally:
        page.close()


@pytest.mark.slow
def test_a_page_names_no_process_no_address_and_no_folder_of_the_machine(report):
    for kind in KINDS:
        text = report(kind).read_text()
        assert not re.search(r"pid \d|\b\d+\.\d+\.\d+\.\d+\b|(?<![\w.:/<])/(?:tmp|home|root|work|usr)/", text)
