"""A real Chromium, told what to do through its debugging pipe: no driver, no port, no network."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 120.0
"""Seconds that an answer may take on a busy machine."""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
WATCH = """window.shifts = [];
new PerformanceObserver((list) => { for (const one of list.getEntries()) window.shifts.push(one.value); })
  .observe({type: "layout-shift", buffered: true});"""


def find_program() -> str | None:
    """Chromium or Chrome on PATH."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@dataclass
class Page:
    """An open page. asked: the addresses that it has requested; complaints: what its console said."""

    browser: Browser
    session: str
    width: int
    height: int
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    loaded: bool = False

    def tell(self, method: str, **parameters: object) -> dict:
        return self.browser.call(method, parameters, self.session)

    def evaluate(self, expression: str):
        """The value of an expression of JavaScript, awaited."""
        answer = self.tell(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def picture(self, *, scale: float = 1.0):
        """A screenshot of the whole page as an array (height, width, 3)."""
        import numpy as np
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(self.png(scale=scale))).convert("RGB"))

    def png(self, *, scale: float = 1.0) -> bytes:
        """The same as a file."""
        high = self.evaluate("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": self.width, "height": high, "scale": scale}
        shot = self.tell("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    def close(self) -> None:
        self.tell("Page.close")


class Browser:
    """One process for many pages."""

    def __init__(self, program: str, home: Path) -> None:
        theirs, ours = os.pipe(), os.pipe()  # what it reads, what it writes
        given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs[0], ours[1])]

        def as_three_and_four() -> None:
            os.dup2(given[0], 3)
            os.dup2(given[1], 4)

        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={home}", "about:blank"],
            pass_fds=(3, 4),
            preexec_fn=as_three_and_four,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (*given, theirs[0], ours[1]):
            os.close(end)
        self._to, self._from = os.fdopen(theirs[1], "wb"), ours[0]
        self._rest, self._number, self._pages = b"", 0, dict[str, Page]()

    def call(self, method: str, parameters: dict, session: str | None = None) -> dict:
        """Ask, and wait for the answer; events that come in between go to their pages."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._to.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer.get("error"))
                return answer["result"]

    def _next(self) -> dict:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self._from, 1 << 20) if ready else b""
            if not more:
                raise TimeoutError("the browser says nothing")
            self._rest += more
        whole, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(whole)
        self._take(message)
        return message

    def _take(self, message: dict) -> None:
        page, told = self._pages.get(message.get("sessionId", "")), message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent" if page:
                page.asked.append(told["request"]["url"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" if page:
                page.complaints.append(json.dumps(told)[:500])
            case "Page.loadEventFired" if page:
                page.loaded = True

    def open(
        self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False, paper: bool = False
    ) -> Page:
        """The page at an address after it has loaded."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session, width, height)
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.tell(f"{domain}.enable")
        page.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.tell("Emulation.setEmulatedMedia", media="print" if paper else "screen", features=[scheme])
        page.tell("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        page.tell("Page.navigate", url=address)
        while not page.loaded:
            self._next()
        return page

    def close(self) -> None:
        self._to.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)
