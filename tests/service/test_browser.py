"""The page in a real browser, with its script: from a dropped file to predictions, by pointer and by keyboard."""

import pytest
import serving
from chromium import chromium

FIRST = "document.querySelector({!r})"


@pytest.mark.slow
def test_a_person_drops_a_file_and_comes_to_predictions(tmp_path):
    (tmp_path / "table.csv").write_text(serving.ROWS)
    (tmp_path / "rows.csv").write_text("a,b\n1,10\n6,0\n")
    options = ("--executor", "in-process")
    with serving.serving(tmp_path, *options) as server, chromium(tmp_path / "browser", width=400) as page:
        page.open(server.once)
        page.until("document.getElementById('drop')")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
        page.drop("#drop", tmp_path / "table.csv")
        page.until(
            "location.pathname.startsWith('/datasets/') && document.querySelector('select[name=target]')"
        )
        assert page.evaluate("document.querySelector('select[name=target]').value") == "y"
        reach(page, "button.main")
        page.press("Enter")
        page.until("location.pathname.startsWith('/recommendations/') && document.getElementById('what-if')")
        what_if(page)
        page.evaluate("document.querySelector('input[name=trials]').value = 2")
        reach(page, "form[action$='/runs'] button")
        page.press("Enter")
        page.until("location.pathname.startsWith('/runs/') && document.querySelector('[data-live]')")
        page.until("document.body.innerText.includes('of 2 trials')")
        page.until("document.querySelector('input[name=rows]')", seconds=120)
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "down"))
        page.choose("input[name=rows]", tmp_path / "rows.csv")
        predict(page, tmp_path / "down" / "predictions.csv")
        assert page.complaints == []
        elsewhere = [one for one in page.asked if not one.startswith((server.url, "blob:", "data:"))]
        assert set(elsewhere) <= {"about:blank"}


def reach(page, selector):
    """Come to an element with the Tab key alone."""
    for _ in range(60):
        page.press("Tab")
        if page.evaluate(f"document.activeElement.matches({selector!r})"):
            return
    raise AssertionError(f"no way to {selector} with the keyboard")


def what_if(page):
    reach(page, "#what-if input[name=fact]")
    page.type("rows")
    page.press("Tab")
    page.type("1000000")
    page.until("!document.getElementById('follows').innerText.startsWith('What would follow')")
    assert "width" in page.evaluate("document.getElementById('follows').innerText")


def predict(page, file):
    import time

    page.evaluate("document.querySelector('form[action$=predict] button').click()")
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        page.evaluate("1")
        time.sleep(0.1)
    assert file.read_text().startswith("prediction") and len(file.read_text().splitlines()) == 3


@pytest.mark.slow
def test_a_tuning_is_stopped_from_its_page(tmp_path):
    (tmp_path / "table.csv").write_text(serving.ROWS)
    with serving.serving(tmp_path, "--executor", "in-process") as server, chromium(tmp_path / "b") as page:
        dataset = server.upload("d.csv", serving.ROWS.encode())
        advised = server.ask("POST", "/v1/recommendations", {"dataset": dataset, "target": "y"}).json["id"]
        run = server.ask("POST", "/v1/runs", {"recommendation": advised, "trials": 500}).json["id"]
        page.open(server.once)
        page.open(f"{server.url}/runs/{run}")
        page.until("document.body.innerText.includes('running')")
        reach(page, "form[action$=stop] button")
        page.press("Enter")
        page.until("document.body.innerText.includes('stopped')", seconds=120)
        assert page.evaluate("document.querySelector('form[action$=resume] button').innerText") == "Go on"
        assert page.complaints == []
