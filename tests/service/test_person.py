"""The page in a real browser, with its script: from a dropped file to predictions, by pointer and by keyboard."""

import contextlib
import json
import time

import pytest
import serving
from chromium import Browser, find_program

KEYS = {"Tab": (9, None), "Enter": (13, "\r")}
FAST = {"epochs": 2, "validation": "holdout", "batch_size": 64}


@pytest.fixture
def browser(tmp_path):
    program = find_program()
    if program is None:
        pytest.skip("there is no chromium or chrome on PATH")
    opened = Browser(program, tmp_path / "browser")
    yield opened
    opened.close()


def until(page, script, seconds=90.0):
    """Wait until a script gives something true; that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(AssertionError):  # one page is giving way to the next
            if found := page.evaluate(f"!!({script})"):
                return found
        time.sleep(0.1)
    raise AssertionError((script, page.evaluate("document.body.innerText")))


def press(page, key):
    code, text = KEYS[key]
    own = {"key": key, "code": key, "windowsVirtualKeyCode": code}
    page.tell("Input.dispatchKeyEvent", type="keyDown", **own, **({"text": text} if text else {}))
    page.tell("Input.dispatchKeyEvent", type="keyUp", **own)


def reach(page, selector):
    """Come to an element with the Tab key alone."""
    for _ in range(60):
        press(page, "Tab")
        if page.evaluate(f"document.activeElement?.matches({selector!r})"):
            return
    raise AssertionError(f"no way to {selector} with the keyboard")


def drop(page, selector, file):
    """A file onto an element, as a person drags it from a folder."""
    script = f"JSON.stringify(document.querySelector({selector!r}).getBoundingClientRect())"
    box = json.loads(page.evaluate(script))
    point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.tell("Input.dispatchDragEvent", type=kind, data=data, **point)


def choose(page, selector, file):
    until(page, "document.readyState === 'complete'")  # numbers of nodes, and a page before it, end with loading
    element = page.tell("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]
    page.tell("DOM.setFileInputFiles", objectId=element["objectId"], files=[str(file)])


def check_quiet(page, server):
    """No word in the console, and no request to anywhere else."""
    assert page.complaints == []
    assert [one for one in page.asked if not one.startswith((server.url, "data:"))] == []


@pytest.mark.slow
def test_a_person_drops_a_file_comes_to_predictions_and_stops_a_run(tmp_path, browser):
    (tmp_path / "table.csv").write_text(serving.ROWS)
    (tmp_path / "rows.csv").write_text("a,b\n1,10\n6,0\n")
    with serving.serving(tmp_path, "--executor", "in-process") as server:
        page = browser.open(server.once, width=400)
        until(page, "document.getElementById('drop')")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
        drop(page, "#drop", tmp_path / "table.csv")
        until(page, "location.pathname.startsWith('/datasets/') && document.querySelector('[name=target]')")
        assert page.evaluate("document.querySelector('[name=target]').value") == "y"
        reach(page, "button.main")
        press(page, "Enter")
        until(page, "location.pathname.startsWith('/recommendations/')")
        reach(page, "#what-if input[name=fact]")
        page.tell("Input.insertText", text="rows")
        press(page, "Tab")
        page.tell("Input.insertText", text="1000000")
        until(page, "document.getElementById('follows').innerText.includes('width')")
        dataset = server.ask("GET", "/v1/datasets").json["items"][0]["id"]
        wanted = {"dataset": dataset, "target": "y", "fixed": FAST}
        quick = server.ask("POST", "/v1/recommendations", wanted).json["id"]
        page.tell("Page.navigate", url=f"{server.url}/recommendations/{quick}")
        until(page, f"location.pathname.endsWith({quick!r}) && document.querySelector('[name=trials]')")
        page.evaluate("document.querySelector('[name=trials]').value = 2")
        reach(page, "form[action$='/runs'] button")
        press(page, "Enter")
        until(page, "location.pathname.startsWith('/runs/')")
        until(page, "document.body.innerText.includes('of 2 trials')")
        until(page, "document.querySelector('input[name=rows]')", seconds=180)
        browser.call(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "down")}
        )
        choose(page, "input[name=rows]", tmp_path / "rows.csv")
        page.evaluate("document.querySelector('form[action$=predict] button').click()")
        deadline = time.monotonic() + 60
        while not (file := tmp_path / "down" / "predictions.csv").exists() and time.monotonic() < deadline:
            page.evaluate("1")
            time.sleep(0.1)
        assert file.read_text().startswith("prediction") and len(file.read_text().splitlines()) == 3
        stopped_from_its_page(page, server, quick)
        check_quiet(page, server)


def stopped_from_its_page(page, server, advised):
    run = server.ask("POST", "/v1/runs", {"recommendation": advised, "trials": 500}).json["id"]
    page.tell("Page.navigate", url=f"{server.url}/runs/{run}")
    until(page, f"location.pathname.endsWith({run!r}) && document.body.innerText.includes('running')")
    reach(page, "form[action$=stop] button")
    press(page, "Enter")
    until(page, "document.querySelector('form[action$=resume] button')", seconds=120)
    assert "stopped" in page.evaluate("document.body.innerText")
