"""Describes the machine, how much other programs used it, and the memory of the run's processes."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from runtime.profile_model import Machine, ProcessMemory
from v2a.clock import Clock

ROOT: Final = Path("/")
_KIB_PER_MIB: Final = 1024
_YARD: Final = bytes(1 << 20)
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def describe_machine(root: Path = ROOT) -> Machine:
    """Describe hardware and kernel. Fields that the machine does not tell are None."""
    return Machine(
        model=text(root / "proc/device-tree/model"),
        cpu=_field(root / "proc/cpuinfo", "model name"),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=_memory_gib(root),
        kernel=platform.release(),
        governor=text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        load_before=round(os.getloadavg()[0], 2),
        versions={},
        realtime={},
    )


def memory_mib(root: Path = ROOT) -> dict[str, ProcessMemory]:
    """Resident memory, now and at its peak, of this process and its children: name -> memory.

    Source: proc_pid_status(5), VmRSS and VmHWM.
    """
    found = {}
    for pid, name in [(os.getpid(), "policy"), *_children(root)]:
        status = root / f"proc/{pid}/status"
        now, peak = _kib(status, "VmRSS"), _kib(status, "VmHWM")
        if now is not None and peak is not None:  # the process may have ended
            found[name] = ProcessMemory(
                resident_mib=round(now / _KIB_PER_MIB, 1), peak_mib=round(peak / _KIB_PER_MIB, 1)
            )
    return found


class Surroundings(NamedTuple):
    """What else happened on the machine during a run."""

    memory: dict[str, ProcessMemory]  # process -> its memory
    others_cores: float  # number of cores that other programs used, on average
    yardstick_ms: float  # median CPU time of a fixed computation


class RunMonitor:
    """Watches the machine during a run, from its construction on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start_ns = clock.now_ns()
        self._before = cpu_s()
        self._yardsticks_ms = [yardstick_ms()]

    @property
    def seconds(self) -> float:
        """The time since the start."""
        return (self._clock.now_ns() - self._start_ns) / 1e9

    def sample(self) -> None:
        """Measure the machine's speed once."""
        self._yardsticks_ms.append(yardstick_ms())

    def summary(self) -> Surroundings:
        """Return memory, the cores that other programs used, and the machine's speed."""
        everybody_s, ours_s = (now - then for now, then in zip(cpu_s(), self._before, strict=True))
        return Surroundings(
            memory=memory_mib(),
            others_cores=round(max(everybody_s - ours_s, 0.0) / self.seconds, 2),
            yardstick_ms=round(median(self._yardsticks_ms), 4),
        )


def yardstick_ms() -> float:
    """Measure how fast the machine is now: the CPU time of a fixed computation.

    The clock rate and a program on the core's other hyperthread change it. Our own code does not.
    """
    start_ns = time.thread_time_ns()
    hashlib.sha256(_YARD).digest()  # gives up the GIL
    return (time.thread_time_ns() - start_ns) / 1e6


def cpu_s(root: Path = ROOT) -> tuple[float, float]:
    """CPU seconds since boot of all programs, and of the processes that `memory_mib` counts.

    Source: proc_stat(5), without idle and I/O waits, with time stolen by a hypervisor; guests are
    part of user time already. proc_pid_stat(5): utime and stime.
    """
    words = (text(root / "proc/stat") or "cpu 0").splitlines()[0].split()[1:]
    ticks = [int(word) for word in words]
    everything = sum(ticks[:3]) + sum(ticks[5:8])
    ours = 0
    for pid in (os.getpid(), *(pid for pid, _ in _children(root))):
        # The fields after the name, which is in brackets and may contain spaces.
        fields = (text(root / f"proc/{pid}/stat") or "").rpartition(")")[2].split()
        ours += sum(map(int, fields[11:13]))
    return everything / _TICKS_PER_S, ours / _TICKS_PER_S


def text(path: Path) -> str | None:
    """The content of a file of the kernel; None if it is missing or cannot be read now."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return None


def _children(root: Path) -> Iterator[tuple[int, str]]:
    """(pid, name) of each process that a thread of this process started.

    The name is the end of its Python module: `runtime.control.process` -> `control_process`.
    """
    for task in (root / f"proc/{os.getpid()}/task").glob("*/children"):
        for pid in (text(task) or "").split():
            words = (text(root / f"proc/{pid}/cmdline") or "").split("\0")
            module = words[words.index("-m") + 1] if "-m" in words[:-1] else words[0]
            yield int(pid), "_".join(module.split(".")[-2:]) or f"process {pid}"


def _field(path: Path, key: str) -> str | None:
    """The value of `key` in a file with lines `key : value`."""
    for line in (text(path) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _kib(path: Path, key: str) -> float | None:
    value = _field(path, key)
    return None if value is None else float(value.removesuffix("kB"))


def _memory_gib(root: Path) -> float | None:
    total_kib = _kib(root / "proc/meminfo", "MemTotal")
    return None if total_kib is None else round(total_kib / 2**20, 1)
