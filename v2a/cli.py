"""The command line. Each package's commands live in its `cli.py`, which is imported on use."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

import click

from v2a import __version__
from v2a.errors import OutputLost, V2AError
from v2a.install import install_hint
from v2a.mapped import MAPPING, outlive_truncation
from v2a.output import expend_stderr, open_missing_streams, watch_stdout


class LazyCommand(NamedTuple):
    """A command's location and its line in `v2a --help`, so that help imports no package."""

    module: str
    attribute: str
    help: str


COMMANDS: Final = {
    "demo": LazyCommand("demo.cli", "demo", "Run the demo in simulation and write a report."),
    "run": LazyCommand("runtime.cli", "run", "Run a policy bundle on a robot."),
    "profile": LazyCommand(
        "runtime.profile.profile_cli", "profile", "Measure what each stage costs; check budgets."
    ),
    "compare": LazyCommand(
        "runtime.profile.compare_cli", "compare", "Compare two profiles, or two bundles."
    ),
    "sweep": LazyCommand(
        "runtime.profile.sweep_cli", "sweep", "Profile a bundle with each combination of options."
    ),
    "record": LazyCommand("runtime.recording.cli", "record", "Inspect or export a recording."),
    "replay": LazyCommand(
        "runtime.replay.cli", "replay", "Recompute a recording's chunks with one or two bundles."
    ),
    "export": LazyCommand("export.cli", "export", "Export a trained policy to a bundle."),
    "check-golden": LazyCommand(
        "export.cli", "check_golden", "Check a released policy against golden tensors."
    ),
    "plan": LazyCommand(
        "export.plan.cli", "plan_command", "Estimate a policy's memory and rates on a device."
    ),
    "build": LazyCommand(
        "runtime.engines.cli", "build", "Build a bundle's TensorRT engines for this machine."
    ),
    "bundle": LazyCommand(
        "runtime.bundle_cli", "bundle", "Check a bundle, show its contents, or make an example."
    ),
    "robot": LazyCommand(
        "runtime.robot_file.cli", "robot", "Write or check the file that describes a robot."
    ),
    "motors": LazyCommand("hw_drivers.motors.cli", "motors", "Check, set up or simulate servos."),
}

# Python package outside the base install -> the extra that installs it.
EXTRA_OF: Final = {
    "av": "lerobot",
    "cuda": "gpu",
    "cv2": "vision",
    "gpiod": "gpio",
    "matplotlib": "demo",
    "mujoco": "demo",
    "onnx": "export",
    "onnxruntime": "cpu",
    "onnxscript": "export",
    "PIL": "demo",
    "pyarrow": "lerobot",
    "pycuda": "pycuda",
    "rerun": "rerun",
    "safetensors": "export",
    "tensorrt_rtx": "validate",
    "torch": "export",
    "transformers": "siglip",
}

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_INTERRUPTED: Final = 130  # 128 + SIGINT, the shells' convention


class LazyGroup(click.Group):
    """A click group that imports the commands of `table` only when they are used."""

    def __init__(self, *args: Any, table: Mapping[str, LazyCommand], **options: Any) -> None:
        super().__init__(*args, **options)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None if it is unknown."""
        if cmd_name not in self._table:
            return None
        lazy = self._table[cmd_name]
        command: click.Command = getattr(importlib.import_module(lazy.module), lazy.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Reject an unknown command and suggest the nearest known one."""
        if args[0] not in self._table and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=self._table, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command list of the help from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in self._table.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A V2AError becomes one message and its exit code."""
        try:
            return super().invoke(ctx)
        except V2AError as error:
            _fail(ctx, str(error), error.exit_code)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in EXTRA_OF:
                raise
            hint = install_hint(EXTRA_OF[package])
            _fail(ctx, f"{package} is not installed; {hint}", V2AError.exit_code)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            where = f"{error.filename}: " if error.filename else ""
            _fail(ctx, f"{where}{error.strerror}; make room, or write elsewhere", 1)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)


def _fail(ctx: click.Context, message: str, exit_code: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    ctx.exit(exit_code)


@click.group(
    cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="v2a")
def cli() -> None:
    """Take a trained Video2Act policy to a moving robot."""


def main() -> None:
    """The console script `v2a`."""
    open_missing_streams()
    expend_stderr()
    watch_stdout()
    # For Pythons that packages start: mujoco's import runs one, whose first path is the current
    # folder. Python 3.10 does not know this variable.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    if set(sys.argv[1:2]) & set(MAPPING):
        outlive_truncation()
    try:
        cli(prog_name="v2a")
    except OutputLost as error:  # of --help and --version, which invoke no command
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
