"""The command line. Each room's commands live in its own `cli.py`, imported when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

import click

from v2a import __version__
from v2a.errors import V2AError


class LazyCommand(NamedTuple):
    """Where a command is, and its line in `v2a --help`, so that help imports nothing."""

    module: str
    attribute: str
    help: str


COMMANDS: Final = {
    "demo": LazyCommand("demo.cli", "demo", "Run the demo robot in simulation and report on it."),
    "run": LazyCommand("runtime.cli", "run", "Run a policy bundle on a robot."),
    "profile": LazyCommand(
        "runtime.profile.cli", "profile", "Time every stage; compare runs; keep to budgets."
    ),
    "record": LazyCommand(
        "runtime.recording.cli", "record", "Look into a recording, or export it."
    ),
    "replay": LazyCommand(
        "runtime.replay.cli", "replay", "Make a recording's chunks again, with one bundle or two."
    ),
    "export": LazyCommand("export.cli", "export", "Export a trained policy to a bundle."),
    "check-golden": LazyCommand(
        "export.cli", "check_golden", "Compare a released policy with its golden tensors."
    ),
    "plan": LazyCommand(
        "export.plan.cli", "plan_command", "Bound a policy's memory and rates on a device."
    ),
    "build": LazyCommand(
        "runtime.engines.cli", "build", "Build a bundle's TensorRT engines for this machine."
    ),
    "bundle": LazyCommand("v2a.bundle_cli", "bundle", "Check a bundle, or show what is in it."),
    "motors": LazyCommand("hw_drivers.motors.cli", "motors", "Check, set up or simulate servos."),
}

# The package that a room needs beyond the base install -> the extra that brings it.
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

_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


class LazyGroup(click.Group):
    """A group whose commands come from `table`: name -> where it is."""

    def __init__(self, *args: Any, table: Mapping[str, LazyCommand], **options: Any) -> None:
        super().__init__(*args, **options)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the room of the command, and only that."""
        if cmd_name not in self._table:
            return None
        lazy = self._table[cmd_name]
        command: click.Command = getattr(importlib.import_module(lazy.module), lazy.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown command with the nearest known one."""
        if args[0] not in self._table and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=self._table, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command list of its help, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in self._table.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; the project's errors become one message and their exit code."""
        try:
            return super().invoke(ctx)
        except V2AError as error:
            _fail(ctx, str(error), error.exit_code)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in EXTRA_OF:
                raise
            fix = f"pip install '.[{EXTRA_OF[package]}]'"
            _fail(ctx, f"{package} is not installed; run: {fix}", V2AError.exit_code)
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
    cli(prog_name="v2a")
