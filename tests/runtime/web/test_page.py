"""The live page of a real run, in a real browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="the bundle of these tests is written with onnx")
pytest.importorskip("onnxruntime", reason="these tests run ONNX Runtime")
pytest.importorskip("cv2", reason="pictures need OpenCV")

from runtime.recording.reader import Recording
from runtime.web.guard import BUTTON_HEADER
from tests.chromium import Page, find_chromium, open_page
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.real_time

PATIENCE_S = 60.0
needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on the PATH")


class Run:
    """`v2a run --dry-run --web` on a free port, with what else it is given."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "v2a", "run", "robot.yaml", "--bundle", "bundle"]
        self.process = subprocess.Popen(
            [*command, "--dry-run", "--record", "here", "--web", "127.0.0.1:0", *options],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        for line in self.process.stderr:
            if found := re.fullmatch(r"live page: (http://127\.0\.0\.1:(\d+)/\S*)\n", line):
                self.url, self.port = found[1], int(found[2])
                return
        raise AssertionError("it named no page")

    def press(self) -> dict[str, Any]:
        """Without the browser."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)) as connection:
            connection.request("POST", "/estop", headers={BUTTON_HEADER: "1"})
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer

    def live(self) -> dict[str, Any]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)) as connection:
            connection.request("GET", "/live")
            status: dict[str, Any] = json.loads(connection.getresponse().read())
            return status

    def until_state(self, *states: str) -> None:
        """Wait until the control process itself says one of these states."""
        deadline = time.monotonic() + PATIENCE_S
        while self.live()["outcome"]["state"] not in states:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def child(self, module: str) -> int:
        """The process id of a child of the run. Raises StopIteration if it has none."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return next(
            int(child) for child in children if module in Path(f"/proc/{child}/cmdline").read_text()
        )

    def end(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, err


@pytest.fixture
def folder(filmed: Path) -> Path:
    return filmed


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def started(*options: str) -> Run:
        runs.append(Run(folder, *options))
        return runs[-1]

    yield started
    for run in runs:
        with suppress(ProcessLookupError):
            run.process.send_signal(signal.SIGCONT)
            run.process.terminate()
        run.process.communicate(timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def page(browser: Page) -> Page:
    browser.faults.clear()
    browser.requests.clear()
    return browser


def until(page: Page, expression: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"never: {expression}\n{page.faults}"
        time.sleep(0.05)


def text(page: Page, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({selector!r}).textContent"))


@needs_chromium
def test_the_page_shows_the_run_as_it_goes_and_its_button_ends_it(
    start: Callable[..., Run], page: Page, folder: Path
) -> None:
    run = start()
    page.show(run.url, 390)
    until(page, "document.getElementById('state').dataset.level === 'armed'")
    until(page, "document.getElementById('picture').naturalWidth === 8")
    until(page, "document.querySelectorAll('#times tbody tr').length > 15")
    until(page, "document.querySelector('#joints td:nth-child(4)').textContent === '25'")
    ticks = "Number(document.querySelector('#missed div:last-child dd').textContent)"
    until(page, f"{ticks} > 0")
    before = page.evaluate(ticks)
    until(page, f"{ticks} > {before}")
    assert text(page, "#robot") == "two"
    assert page.evaluate("document.documentElement.scrollWidth") == 390  # nothing sticks out
    assert page.evaluate("document.getElementById('alert').hidden")
    assert page.faults == []
    assert {url.partition("//")[2].partition("/")[0] for url in page.requests} <= {
        f"127.0.0.1:{run.port}", "", run.url.removeprefix("http://127.0.0.1"),
    }  # fmt: skip

    page.evaluate("document.getElementById('estop').click()")
    until(
        page, "document.getElementById('pressed').textContent.startsWith('Stopped: torque is off')"
    )
    code, err = run.end()
    assert code == 7
    assert "emergency stop" in err
    changes = list(Recording(folder / "here").safety())
    assert changes[-1].state == "torque off"


@needs_chromium
def test_with_a_token_the_page_asks_for_it_and_forgets_it_in_the_address(
    start: Callable[..., Run], page: Page
) -> None:
    run = start("--web-remote")
    address, _, token = run.url.partition("#")
    assert len(token) >= 32
    armed = "document.getElementById('state').dataset.level === 'armed'"
    page.show(address, 1200)
    until(page, "!document.getElementById('key').hidden")
    assert "token" in text(page, "#alert")
    page.evaluate(f"location.hash = {token!r}")
    until(page, armed)
    assert page.evaluate("location.hash + sessionStorage.getItem('token')") == token
    page.evaluate("sessionStorage.clear()")
    page.show(address, 1200)  # anew
    until(page, "!document.getElementById('key').hidden")
    page.evaluate(f"document.getElementById('token').value = {token!r}")
    page.evaluate("document.querySelector('#key button').click()")
    until(page, armed)
    page.evaluate("document.getElementById('estop').click()")
    until(
        page, "document.getElementById('pressed').textContent.startsWith('Stopped: torque is off')"
    )
    assert run.end()[0] == 7


@needs_chromium
def test_another_sites_page_can_neither_look_nor_press(
    start: Callable[..., Run], page: Page, tmp_path: Path
) -> None:
    """A page of another origin (a file) tries all that scripts and forms can."""
    run = start()
    (tmp_path / "evil.html").write_text(
        f"<iframe name=f src={run.url}></iframe>"
        f"<form method=post target=f action={run.url}estop></form><script>"
        "const done = []; document.forms[0].submit();"
        f"const tries = [['live', {{}}], ['estop', {{method: 'POST'}}],"
        "['estop', {method: 'POST', headers: {'X-V2A-Button': '1'}}]];"
        f"for (const [path, how] of tries) fetch('{run.url}' + path, how)"
        ".then(() => done.push('got through'), () => done.push('refused'));"
        f"fetch('{run.url}estop', {{method: 'POST', mode: 'no-cors'}})"
        ".then((answer) => done.push(answer.type), () => done.push('refused'));</script>"
    )
    page.show(f"file://{tmp_path}/evil.html", 800)
    until(page, "done.length === 4")
    # An opaque answer says only that there was one: 403, as the run that goes on shows.
    assert sorted(page.evaluate("done")) == ["opaque", "refused", "refused", "refused"]
    page.show(run.url, 800)
    until(page, "document.getElementById('state').dataset.level === 'armed'")
    assert run.process.poll() is None


def test_the_button_works_while_the_policy_hangs(start: Callable[..., Run], folder: Path) -> None:
    run = start()
    run.until_state("armed")
    run.process.send_signal(signal.SIGSTOP)  # every thread of the policy's process, at once
    answer = run.press()
    assert (answer["confirmed"], answer["torque"]) == (True, {"base": "off", "tip": "off"})
    run.process.send_signal(signal.SIGCONT)
    code, err = run.end()
    assert (code, "emergency stop by the live page" in err) == (7, True)


def test_the_button_outlives_the_policy_and_the_recorder(
    start: Callable[..., Run], folder: Path
) -> None:
    """The arm still moves to its safe pose after the policy's process was killed."""
    with (folder / "robot.yaml").open("a") as robot:
        robot.write("safety: {safe_pose_rad: [1.0, 0.9]}\n")
    run = start()
    run.until_state("armed")
    page = run.child("runtime.web.process")
    os.kill(run.child("runtime.recording.process"), signal.SIGKILL)
    run.process.kill()
    run.process.wait(PATIENCE_S)
    run.until_state("safe pose", "torque off")
    assert run.press()["confirmed"]
    deadline = time.monotonic() + PATIENCE_S
    while _alive(page):  # it is no orphan
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_page_that_dies_is_a_stop(start: Callable[..., Run]) -> None:
    run = start()
    run.until_state("armed")
    os.kill(run.child("runtime.web.process"), signal.SIGKILL)
    code, err = run.end()
    assert code == 7
    assert "emergency stop by the live page: its STOP was lost" in err


def test_the_death_of_the_control_process_is_not_confirmed(start: Callable[..., Run]) -> None:
    run = start()
    run.until_state("armed")
    os.kill(run.child("runtime.control.process"), signal.SIGKILL)
    answer = run.press()
    assert not answer["confirmed"]
    assert set(answer["torque"].values()) == {"unknown"}
    assert "cut the motors' power" in answer["text"]
    code, err = run.end()
    assert (code, "cut the motors' power" in err) == (7, True)


def _alive(pid: int) -> bool:
    """Not gone, and no zombie that nobody has buried yet."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_beyond_this_machine_only_on_purpose_and_before_anything_starts(folder: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "v2a",
            "run",
            "robot.yaml",
            "--bundle",
            "bundle",
            "--web",
            "0.0.0.0:0",
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "add --web-remote" in done.stderr
    assert not (folder / "runs").exists()
