"""The table of a running robot, from a run on a virtual clock."""

from __future__ import annotations

import os

import pytest

from runtime.status import Status
from tests.runtime.conftest import World
from v2a.bundle import Bundle
from v2a.terminal import LiveLines


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_place(*, err: bool) -> LiveLines:
        lines = LiveLines(err=err)
        lines.in_place = True
        return lines

    monkeypatch.setattr("runtime.status.LiveLines", in_place)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((79, 24)))


def played(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What stands on the screen after two seconds, armed after the first."""
    world = World(bundle)

    def stages() -> dict[str, dict[str, float]]:
        world.tracer.drain()
        return world.tracer.stage_table(bundle.manifest.stages)

    with world.lockstep as lockstep:
        status = Status(world.workers, stages)
        lockstep.run(1.0)
        status.show()
        lockstep.arm()
        capsys.readouterr()
        lockstep.run(1.0)
        status.show()
        return capsys.readouterr().err.replace("\x1b[K", "").splitlines()


def test_on_a_terminal_it_is_a_table(
    bundle: Bundle, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = played(bundle, capsys)
    assert "2.0 s  ARMED  following" in lines[0]
    # Arming took a tick: 20 pictures, 20 conditions, 5 chunks and 51 ticks in 1.02 s.
    assert (
        lines[1] == "rates     camera 19.6/20  system2 19.6/20  system1 4.9/5  control 50.0/50 Hz"
    )
    assert lines[2].startswith("missed    late 0  bus 0  no_chunk ")
    assert lines[2].endswith(" of 102 ticks")
    assert lines[3].startswith("joints    base +")
    text = "\n".join(lines)
    for name in ("condition_age", "chunk_age", "frame_to_motor", "denoise", "bus_write"):
        assert f"{name} " in text
    assert max(map(len, lines)) < 79 + len("\x1b[13A")
    assert len(lines) < 24


def test_elsewhere_it_is_a_line(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = played(bundle, capsys)
    assert line.split()[:5] == ["2", "s", "armed", "chunks", "10"]
