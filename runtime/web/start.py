"""Turns the options of `v2a run --web` into a sink for the recorder process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.config.robot_yaml import RunConfig
from runtime.recording.sinks import SinkSpec
from runtime.web.guard import Address, new_token, parse_address
from runtime.web.view import About
from runtime.workers import Workers
from v2a.errors import ConfigError


def page_address(text: str, remote: bool) -> Address:
    """Return the address to listen on.

    Raises ConfigError if `text` is no address, or if other machines could reach it and `remote` is
    False.
    """
    address = parse_address(text)
    if not (remote or address.is_loopback):
        raise ConfigError(
            f"--web {text}: other machines could reach it; add --web-remote to allow that, or "
            "leave out the address and use `ssh -L`"
        )
    return address


@contextmanager
def with_button(config: RunConfig) -> Iterator[RunConfig]:
    """Yield `config` with an emergency stop socket: its own, or a private one for this run."""
    if config.safety.estop.socket is not None:
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="v2a-") as folder:  # no other user can enter it
        socket = str(Path(folder) / "estop")
        estop = config.safety.estop.model_copy(update={"socket": socket})
        safety = config.safety.model_copy(update={"estop": estop})
        yield config.model_copy(update={"safety": safety})


def web_sink(address: Address, remote: bool, workers: Workers) -> SinkSpec:
    """Describe the live page of `workers`, whose configuration comes from `with_button`."""
    config = workers.config
    about = About(
        robot=config.robot.name,
        policy=workers.bundle.manifest.policy,
        instruction=config.instruction,
        joints=tuple(joint.name for joint in config.robot.joints),
        temperature_max_c=config.safety.health.temperature_max_c,
        dry_run=workers.control.dry_run,
    )
    options = {
        "address": address,
        "token": new_token() if remote else None,
        "estop": config.safety.estop.socket,
        "about": about,
    }
    return SinkSpec("runtime.web.sink:WebSink", options)
