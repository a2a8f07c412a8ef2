"""A headless Chromium, spoken to by the DevTools protocol over a pipe: its faults, its pictures."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
TIMEOUT_S = 60


def find_chromium() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab. `faults` gathers exceptions and console errors, `requests` what it asked for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to_browser = to_browser
        self._from_browser = from_browser
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        self._loaded = False
        self.faults: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def show(self, address: str, width: int, height: int = 844, *, dark: bool = False) -> None:
        """Load the page on a screen of that size and wait until it is there."""
        self._resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self.call("Page.navigate", url=address)
        while not self._loaded:
            self._next()

    def evaluate(self, expression: str) -> Any:
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def screenshot(self, path: Path, selector: str = "html", quality: int = 80) -> Path:
        """PNG or WebP by the path's suffix: the whole element, also what is off the screen."""
        # A screen as high as the page: a picture of what lies beyond it would scroll things back.
        self._resize(*self.evaluate("[innerWidth, document.documentElement.scrollHeight]"))
        element = f"document.querySelector({json.dumps(selector)})"
        box = self.evaluate(f"{element}.getBoundingClientRect().toJSON()")
        clip = {key: box[key] for key in ("x", "y", "width", "height")} | {"scale": 1}
        kind = path.suffix.removeprefix(".")
        options = {"quality": quality} if kind == "webp" else {}
        shot = self.call("Page.captureScreenshot", format=kind, clip=clip, **options)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def _resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def _next(self) -> dict[str, Any]:
        """The next message; what is an event is noted."""
        while b"\0" not in self._unread:
            data = os.read(self._from_browser, 1 << 20)
            assert data, "the browser ended"
            self._unread += data
        raw, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.faults.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.faults.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.faults.append(params["entry"]["text"])


@contextlib.contextmanager
def open_page(profile_dir: Path) -> Iterator[Page]:
    """A tab of a new browser, which ends with the block."""
    chromium = find_chromium()
    assert chromium, "no Chromium on the PATH: look with find_chromium() first"
    their_in, to_browser = os.pipe()
    from_browser, their_out = os.pipe()
    # The protocol's pipes are the file descriptors 3 and 4 of the browser.
    command = [
        *("bash", "-c", f'exec "$0" "$@" 3<&{their_in} 4>&{their_out}'),
        *(chromium, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile_dir}"),
    ]
    browser = subprocess.Popen(
        command,
        pass_fds=(their_in, their_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for end in (their_in, their_out):
        os.close(end)
    try:
        yield Page(to_browser, from_browser)
    finally:
        for end in (to_browser, from_browser):  # it ends when its pipe is closed
            os.close(end)
        try:
            browser.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()
