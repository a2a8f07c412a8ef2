"""The whole runtime on a virtual clock: repeatable, and late in every way on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from runtime.config.robot_yaml import RunConfig
from runtime.lockstep import CallbackCamera, Delay
from runtime.mailbox import FrameMsg
from runtime.recording.reader import Recording
from tests.runtime.conftest import SIZE, T, World, after_ms, fakes, run_config, torques
from v2a.bundle import Bundle
from v2a.errors import CameraError, ConfigError, SafetyFault


def drawn(low_ms: float, high_ms: float) -> Delay:
    return lambda rng: int(rng.uniform(low_ms, high_ms) * 1e6)


DELAYS = {"camera": drawn(2, 9), "system1": drawn(20, 60), "system2": drawn(150, 400)}


def noisy(feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    return {"chunk_rad": feeds["command_rad"][:, None, :] + 0.1 * feeds["noise"]}


def recorded(bundle: Bundle, folder: Path, seed: int) -> bytes:
    engines = fakes(denoise=noisy)
    world = World(bundle, delays=DELAYS, seed=seed, record_dir=folder, engines=engines)
    with world.lockstep as lockstep:
        for _ in range(2):
            lockstep.arm()
            lockstep.run(2.0)
            lockstep.reset()
    return (folder / "run.mcap").read_bytes()


def test_same_seed_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    first = recorded(bundle, tmp_path / "a", seed=1)
    assert len(list(Recording(tmp_path / "a").states())) > 200
    assert first == recorded(bundle, tmp_path / "b", seed=1)
    assert first != recorded(bundle, tmp_path / "c", seed=2)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_the_sampler_starts_from_noise_of_the_scale_that_was_asked_for(
    bundle: Bundle, scale: float
) -> None:
    seen = []

    def watching(feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        seen.append(feeds["noise"])
        return noisy(feeds)

    config = run_config(system1={"noise_scale": scale})
    with World(bundle, config, engines=fakes(denoise=watching)).lockstep as lockstep:
        lockstep.run(20.0)
    assert np.std(seen) == pytest.approx(scale, abs=0.05)


def test_ages_and_ticks_are_those_of_the_delays(bundle: Bundle) -> None:
    delays = {"camera": after_ms(5), "system1": after_ms(30), "system2": after_ms(200)}
    world = World(bundle, delays=delays)
    with world.lockstep as lockstep:
        lockstep.arm()
        lockstep.run(3.0)
        summary = lockstep.summary()
    assert summary.ticks == 151  # t = 0, 20 ms, ... 3 s
    assert summary.missed_ticks["late"] == 0
    assert summary.missed_ticks["bus"] == 0
    # At least as old as System 2 takes; at most that twice, plus the wait for a frame.
    assert summary.ages["condition_age"].p50_ms >= 200 * (1 - 1 / 32)
    assert summary.ages["condition_age"].max_ms <= 450
    assert summary.ages["frame_to_motor"].p50_ms == pytest.approx(150, abs=80)
    assert summary.counts["system1"]["chunks"] == pytest.approx(14, abs=1)
    assert world.setpoints_rad[0] > 0.3  # and the joints rose


def test_both_systems_keep_their_period_on_a_camera_that_jitters(bundle: Bundle) -> None:
    """Every 4th frame each: a frame that comes a little early is not made to wait for the next."""
    config = run_config(system1={"period_s": 0.2}, system2={"period_s": 0.2})
    world = World(bundle, config, delays={"camera": drawn(1, 12), "system2": after_ms(5)})
    with world.lockstep as lockstep:
        lockstep.run(8.09)
    assert world.workers.system2.counts["conditions"] == 40  # from 0.1 s on
    assert world.workers.system1.counts["chunks"] == 40


def age_config(**ages: float) -> RunConfig:
    return run_config(system2={"soft_age_s": 0.5, "hard_age_s": 1.0, **ages})


def test_a_late_system_2_slows_then_stops_the_robot_and_never_the_loop(bundle: Bundle) -> None:
    """System 2 is on time twice, then takes 2 s."""
    calls: list[int] = []

    def late(rng: np.random.Generator) -> int:
        calls.append(1)
        return 100_000_000 if len(calls) < 3 else 2_000_000_000

    world = World(bundle, age_config(), delays={"system2": late})
    with world.lockstep as lockstep:
        lockstep.arm()
        steps_ns: set[int] = set()
        states: list[str] = []
        for _ in range(125):
            lockstep.run(0.02)
            chunk = world.workers.mailboxes.chunk.get()
            if chunk is not None:
                steps_ns.add(chunk.step_ns)
            states.append(world.workers.control.safety.state.value)
        held_rad = world.setpoints_rad
        lockstep.run(0.2)
        assert world.setpoints_rad == held_rad  # at rest, with torque on
        assert torques(world.chain) == [True, True]
        lockstep.run(1.0)  # System 2's result comes
        summary = lockstep.summary()
    assert steps_ns == {50_000_000, 75_000_000}  # slower past the soft age
    assert summary.counts["system1"]["soft_age"] >= 1
    assert summary.counts["system1"]["hard_age"] >= 1
    assert states[-1] == "hold"
    assert summary.ticks == 186
    assert summary.missed_ticks["late"] == 0


def test_what_was_begun_before_a_reset_is_not_acted_upon(bundle: Bundle) -> None:
    world = World(bundle, delays={"system1": after_ms(150), "system2": after_ms(300)})
    boxes = world.workers.mailboxes
    with world.lockstep as lockstep:
        lockstep.run(1.0, until=lambda: world.workers.system1.counts["chunks"] == 2)
        lockstep.reset()  # with a chunk on its way
        lockstep.run(0.3)
        assert boxes.dropped_stale() >= 1
        assert boxes.chunk.get() is None  # System 2 has to see the new episode first
        lockstep.run(1.0)
        chunk = boxes.chunk.get()
        assert chunk is not None
        assert chunk.epoch == 1


def test_the_first_condition_waits_for_a_full_history_of_its_own_episode(bundle: Bundle) -> None:
    world = World(bundle)
    with world.lockstep as lockstep:
        lockstep.run(0.1)
        condition = world.workers.mailboxes.condition.get()
        assert condition is not None
        assert condition.t_frame_ns == 100_000_000  # the third picture, 50 ms apart
        lockstep.run(0.02)
        lockstep.reset()
        lockstep.run(0.12)
        assert world.workers.mailboxes.condition.get() is None  # 150 and 200 ms were too few
        lockstep.run(0.02)
        condition = world.workers.mailboxes.condition.get()
        assert condition is not None
        assert condition.t_frame_ns == 250_000_000


def test_a_failing_camera_turns_the_torque_off(bundle: Bundle) -> None:
    world = World(bundle)

    def broken() -> np.ndarray:
        raise CameraError("front: no picture")

    with world.lockstep as lockstep:
        lockstep.arm()
        lockstep.run(0.5)
        world.workers.camera._camera = CallbackCamera(broken, world.clock)
        with pytest.raises(CameraError, match="no picture"):
            lockstep.run(0.5)
        assert torques(world.chain) == [False, False]


def test_arming_out_of_range_is_refused(bundle: Bundle) -> None:
    world = World(bundle)
    world.chain.servos[2].set_present_rad(1.4)
    with world.lockstep as lockstep, pytest.raises(SafetyFault, match=r"tip is at 1\.4"):
        lockstep.arm()
    assert torques(world.chain) == [False, False]


def test_joints_that_are_not_the_bundles_are_refused(bundle: Bundle) -> None:
    config = run_config()
    joints = tuple(j.model_copy(update={"name": j.name.upper()}) for j in config.robot.joints)
    robot = config.robot.model_copy(update={"joints": joints})
    with pytest.raises(ConfigError, match="has the joints BASE, TIP; the bundle tiny moves base"):
        World(bundle, config.model_copy(update={"robot": robot}))


def test_a_camera_slower_than_the_policys_history_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="camera of at least 20 fps"):
        World(bundle, run_config(camera={"source": "file:none", "fps": 10}))


def test_an_arming_that_failed_does_not_arm_later(bundle: Bundle) -> None:
    world = World(bundle)
    with world.lockstep as lockstep:
        silent = world.chain.servos.pop(2)
        with pytest.raises(SafetyFault, match="a servo did not answer in two control ticks"):
            lockstep.arm()
        world.chain.servos[2] = silent
        lockstep.run(0.2)
        assert torques(world.chain) == [False, False]


def test_torque_that_a_killed_run_left_on_stays_on_and_is_said(bundle: Bundle) -> None:
    world = World(bundle)
    for servo in world.chain.servos.values():
        servo.write(64, b"\x01")
    with world.lockstep as lockstep:
        lockstep.run(0.2)
    assert torques(world.chain) == [True, True]
    fault = lockstep.summary().torque_fault or ""
    assert fault.startswith("this run found torque on and leaves it so: base on, tip on; to turn")


def test_arming_takes_over_torque_that_a_killed_run_left_on_and_the_end_turns_it_off(
    bundle: Bundle,
) -> None:
    world = World(bundle)
    for servo in world.chain.servos.values():
        servo.write(64, b"\x01")
    off: list[bool] = []
    write = world.chain.servos[1].write

    def noted(address: int, data: bytes) -> int:
        off.append(address == 64 and data == b"\x00")
        return write(address, data)

    world.chain.servos[1].write = noted  # type: ignore[method-assign]
    with world.lockstep as lockstep:
        lockstep.arm()
        assert not any(off)  # it never let go on the way
        assert lockstep.summary().torque_fault is None
    assert torques(world.chain) == [False, False]


def test_pictures_that_stand_for_two_instants_are_counted(bundle: Bundle) -> None:
    """A video of half the rate: the policy's three instants are shown in two pictures."""
    world = World(bundle)
    world.workers.prepare()
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    history = tuple((k * 100_000_000, image) for k in range(T))
    world.workers.mailboxes.frame.put(FrameMsg(1, 200_000_000, 0, 0, 0, image, history), 0)
    assert world.workers.system2.compute(0) is not None
    counts = world.workers.system2.counts
    assert (counts["pictures"], counts["repeated_pictures"]) == (3, 1)
