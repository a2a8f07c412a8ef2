"""The command line: fast help, near names, one clear line per failure, exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

from v2a import __version__
from v2a.cli import COMMANDS, EXTRA_OF, cli
from v2a.errors import ConfigError, OutputLost, SafetyFault
from v2a.install import install_hint

ROOMS = ("calibration", "demo", "deploy", "export", "hw_drivers", "runtime")
HEAVY = ("cv2", "mujoco", "numpy", "onnxruntime", "pydantic", "torch", "yaml")


def v2a(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="v2a")


RunRaises = Callable[[BaseException], Result]


@pytest.fixture
def run_raises(monkeypatch: pytest.MonkeyPatch) -> RunRaises:
    """A function that replaces `v2a run` by a command that raises, and runs it."""

    def invoke(error: BaseException) -> Result:
        @click.command()
        def run() -> None:
            raise error

        room = ModuleType("runtime.cli")
        room.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "runtime.cli", room)
        return v2a("run")

    return invoke


def test_help_lists_every_command_and_imports_no_room_and_nothing_heavy() -> None:
    script = (
        "import sys; from v2a.cli import main\n"
        "try: main()\n"
        "finally: print('IMPORTED', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True
    )
    for name, lazy in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert lazy.help in done.stdout
    roots = {module.partition(".")[0] for module in done.stderr.split()}
    assert "IMPORTED" in roots
    assert roots.isdisjoint({*ROOMS, *HEAVY})


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_of_the_table_is_there_under_that_name(name: str) -> None:
    room = COMMANDS[name].module.partition(".")[0]
    pytest.importorskip({"demo": "mujoco", "export": "torch"}.get(room, "click"))
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert v2a(name, "--help").exit_code == 0


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    assert "Did you mean 'bundle'?" in v2a("bundel").stderr
    assert "Did you mean 'check'?" in v2a("bundle", "chek").stderr
    assert "Did you mean '--version'?" in v2a("--verison").stderr
    assert v2a("bundel").exit_code == 2


def test_the_version_is_the_packages() -> None:
    assert __version__ in v2a("--version").stdout


def test_every_line_of_an_error_is_kept_and_the_exit_code_is_its_own(run_raises: RunRaises) -> None:
    result = run_raises(ConfigError("robot.yaml:3: a: wrong\nrobot.yaml:9: b: wrong"))
    assert result.stderr == "error: robot.yaml:3: a: wrong\nrobot.yaml:9: b: wrong\n"
    assert result.stdout == ""
    assert result.exit_code == ConfigError.exit_code
    assert run_raises(SafetyFault("too fast")).exit_code == SafetyFault.exit_code


@pytest.mark.parametrize("package", EXTRA_OF)
def test_a_missing_package_names_the_extra_that_brings_it(
    run_raises: RunRaises, package: str
) -> None:
    result = run_raises(ModuleNotFoundError("no module", name=f"{package}.part"))
    assert result.stderr == (
        f"error: {package} is not installed; {install_hint(EXTRA_OF[package])}\n"
    )
    assert result.exit_code == 1


def test_a_missing_module_of_our_own_is_a_bug_and_stays_a_traceback(run_raises: RunRaises) -> None:
    result = run_raises(ModuleNotFoundError("no module", name="runtime.nothing"))
    assert isinstance(result.exception, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("command", "where"),
    [("bundle show", ">/dev/full"), ("bundle show", "| true"), ("--help", ">/dev/full")],
)
def test_a_result_that_cannot_be_written_has_an_exit_code_of_its_own(
    bundle_dir: Path, where: str, command: str
) -> None:
    """No Python package is missing then, which 1 means."""
    show = f"{sys.executable} -m v2a {command} {bundle_dir}"
    late = f"set -o pipefail; {{ sleep 0.5; {show}; }} {where}"  # `true` is gone by then
    done = subprocess.run(["bash", "-c", late], capture_output=True, text=True)
    assert done.returncode == OutputLost.exit_code
    assert re.fullmatch("error: stdout could not be written: .*\n", done.stderr)


def test_interrupting_exits_as_shells_expect(run_raises: RunRaises) -> None:
    assert run_raises(KeyboardInterrupt()).exit_code == 130


def test_bundle_check_and_show(bundle_dir: Path) -> None:
    checked = v2a("bundle", "check", str(bundle_dir))
    assert checked.stdout == f"{bundle_dir}: good; 2 files verified\n"
    shown = v2a("bundle", "show", str(bundle_dir)).stdout
    assert "joint: elbow -1.5 to 1.5 rad, 3 rad/s" in shown
    assert "graph: denoise at rate denoise, fp32" in shown
    assert "  out chunk_rad float32[1, 16, 2]: joint targets [rad]" in shown
    assert "instruction: reach the cube" in shown


def test_bundle_check_of_a_broken_bundle(bundle_dir: Path) -> None:
    (bundle_dir / "graphs/denoise.onnx").unlink()
    result = v2a("bundle", "check", str(bundle_dir))
    assert result.exit_code == 3
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
