"""The board's sensors, read from a folder laid out like a Jetson's /sys and /proc."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.profile.jetson import JetsonSampler, is_jetson
from runtime.profile.machine import cpu_s, describe_machine, memory_mib
from runtime.profile_model import Board, MeanMax

ORIN = {
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767\0nvidia,tegra234\0",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:fanNull\n",
    "sys/class/hwmon/hwmon0/name": "pwmfan\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr1_input": "2000\n",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages\n",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "27\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "63625\n",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal\n",  # switched off: its temp can't be read
    "sys/class/thermal/thermal_zone2/temp": "",
    "sys/class/thermal/cooling_device0/type": "cpu-throttle-alert\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/class/thermal/cooling_device1/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device1/cur_state": "3\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "624750000\n",
}


@pytest.fixture
def board(tmp_path: Path) -> Path:
    for name, content in ORIN.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_power_clocks_and_temperatures_are_read_in_si_units(board: Path) -> None:
    sampler = JetsonSampler(board)
    sampler.sample(0.0)
    (board / "sys/class/hwmon/hwmon1/curr1_input").write_text("3000\n")
    sampler.sample(0.5)
    found = sampler.summary()
    assert found.power_w == {"VDD_IN": MeanMax(mean=12.5, max=15.0)}
    assert found.temperature_c == {"cpu-thermal": MeanMax(mean=63.625, max=63.625)}
    assert found.clock_mhz["cpu0"].max == 1510.4
    assert found.clock_mhz["17000000.gpu"].max == 624.75
    assert found.power_mode == "pmode:0002 fmode:fanNull"


def test_throttling_is_marked_when_it_happens(board: Path) -> None:
    sampler = JetsonSampler(board)
    sampler.sample(0.0)  # 27 events since boot are not of this run, nor does a fan slow anything
    (board / "sys/class/hwmon/hwmon3/oc3_event_cnt").write_text("29\n")
    sampler.sample(0.5)
    sampler.sample(1.0)
    (board / "sys/class/thermal/cooling_device0/cur_state").write_text("1\n")
    sampler.sample(1.5)
    assert sampler.summary().throttled == (
        "0.5 s: instantaneous over-current",
        "1.5 s: cpu-throttle-alert",
    )


def test_what_the_board_does_not_have_is_left_out(board: Path, tmp_path: Path) -> None:
    assert is_jetson(board)
    assert not is_jetson(tmp_path / "pc")
    empty = JetsonSampler(tmp_path / "pc")
    empty.sample(0.0)
    nothing = Board(power_w={}, temperature_c={}, clock_mhz={}, power_mode=None, throttled=())
    assert empty.summary() == nothing


def test_the_machine_is_described(board: Path) -> None:
    assert describe_machine(board).model == "NVIDIA Jetson Orin Nano Developer Kit"
    assert describe_machine(board).governor == "schedutil"
    here = describe_machine()
    assert (here.cores or 0) >= 1
    assert (here.memory_gib or 0) > 0.5


def test_cpu_time_is_told_apart_from_that_of_others(tmp_path: Path) -> None:
    ours = tmp_path / f"proc/{os.getpid()}/stat"
    ours.parent.mkdir(parents=True)
    ours.write_text("7 (a name) with) S 1 7 7 0 -1 0 0 0 0 0 120 30 0 0 20 0 9 0\n")
    (tmp_path / "proc/stat").write_text("cpu  300 20 100 9000 40 0 5 75 50 0\ncpu0 1 1 1 1\n")
    assert cpu_s(tmp_path) == (5.0, 1.5)  # idle, I/O waits and guests left out
    before = cpu_s()
    assert before[0] > before[1] > 0


def test_memory_is_that_of_this_process() -> None:
    import resource

    found = memory_mib()["policy"]
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert found.peak_mib == pytest.approx(peak_mib, rel=0.05)
    assert 0 < found.resident_mib <= found.peak_mib
