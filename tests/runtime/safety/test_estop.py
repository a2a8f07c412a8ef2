"""The emergency stop inputs: a line of a GPIO chip, here a fake one, and how it may fail."""

from __future__ import annotations

import errno
import inspect
import os
import socket
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from runtime.config.safety_yaml import EstopConfig
from runtime.safety.estop import Estop
from tests.runtime.safety import fake_gpiod
from tests.runtime.safety.fake_gpiod import CHIP, Bias, Chip, Direction
from v2a.errors import ConfigError
from v2a.install import install_hint


def config(chip: str = CHIP, line: int = 3) -> EstopConfig:
    return EstopConfig.model_validate({"gpio": {"chip": chip, "line": line}})


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Chip:
    """A chip whose line 3 is grounded by the closed contact of a button."""
    chip = Chip(grounded={3})
    for name, module in fake_gpiod.modules(chip).items():
        monkeypatch.setitem(sys.modules, name, module)
    return chip


@pytest.fixture
def estop(chip: Chip) -> Iterator[Estop]:
    estop = Estop(config())
    yield estop
    estop.close()


def test_an_open_contact_is_a_stop_and_a_closed_one_is_none(estop: Estop, chip: Chip) -> None:
    assert estop.pressed() is None
    chip.grounded.clear()  # pressed, or a torn wire
    assert estop.pressed() == f"{CHIP} line 3"
    chip.grounded.add(3)
    assert estop.pressed() is None


def test_a_line_that_cannot_be_read_is_a_stop(estop: Estop, chip: Chip) -> None:
    chip.unplugged = True
    assert estop.pressed() == f"{CHIP} line 3, which can't be read"


def test_the_line_is_an_input_with_a_pull_up_until_it_is_closed(chip: Chip) -> None:
    estop = Estop(config())
    assert chip.consumer == "v2a estop"
    assert chip.settings[3].direction is Direction.INPUT
    assert chip.settings[3].bias is Bias.PULL_UP
    estop.close()
    estop.close()
    assert not chip.settings


@pytest.mark.parametrize(
    ("path", "line", "reason"),
    [
        ("/dev/gpiochip99", 3, os.strerror(errno.ENOENT)),
        (CHIP, 99, os.strerror(errno.EINVAL)),
        (CHIP, 3, os.strerror(errno.EBUSY)),
    ],
)
def test_a_line_that_cannot_be_had_is_one_line(
    estop: Estop, path: str, line: int, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Estop(config(path, line))
    assert str(caught.value) == (
        f"safety.estop.gpio: {path} line {line}: {reason}; `gpioinfo` lists the chips and lines"
    )


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpiod", None)
    with pytest.raises(ConfigError) as caught:
        Estop(config())
    assert str(caught.value) == (
        f"safety.estop.gpio: {CHIP} line 3: gpiod is not installed; {install_hint('gpio')}"
    )


def test_the_real_package_on_a_chip_that_is_not_there() -> None:
    pytest.importorskip("gpiod")
    reason = os.strerror(errno.ENOENT)
    with pytest.raises(ConfigError, match=f"gpiochip99 line 3: {reason}; `gpioinfo` lists"):
        Estop(config("/dev/gpiochip99"))


def test_the_fake_has_the_signatures_of_the_real_package() -> None:
    gpiod = pytest.importorskip("gpiod")
    fake: Any = fake_gpiod.modules(Chip())["gpiod"]

    def parameters(function: Any) -> list[tuple[str, Any]]:
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    assert parameters(fake.request_lines) == parameters(gpiod.request_lines)
    for name in ("get_value", "release"):
        ours, theirs = (getattr(package.LineRequest, name) for package in (fake, gpiod))
        assert parameters(ours) == parameters(theirs)
    ours, theirs = (dict(parameters(package.LineSettings)) for package in (fake, gpiod))
    assert {name: default.name for name, default in ours.items()} == {
        name: theirs[name].name for name in ours
    }
    for name in ("Value", "Direction", "Bias"):
        enum: type[Enum] = getattr(gpiod.line, name)
        assert [e.name for e in getattr(fake.line, name)] == [e.name for e in enum]


def socket_at(path: Path) -> EstopConfig:
    return EstopConfig(socket=str(path))


def test_a_second_run_is_refused_and_the_first_one_still_hears(tmp_path: Path) -> None:
    path = tmp_path / "estop"
    first = Estop(socket_at(path))
    with pytest.raises(ConfigError, match="another run uses it; end that run"):
        Estop(socket_at(path))
    assert first.pressed() is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as button:
        button.sendto(b"stop", str(path))
    assert first.pressed() == f"datagram to {path}"
    first.close()
    assert not path.exists()


def test_a_path_that_was_taken_away_is_a_stop(tmp_path: Path) -> None:
    path = tmp_path / "estop"
    estop = Estop(socket_at(path))
    path.unlink()
    assert estop.pressed() == f"the loss of {path}"
    estop.close()
