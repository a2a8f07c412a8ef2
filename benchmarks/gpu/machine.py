"""Describes the machine: versions, clocks, power, temperature, throttle reasons."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu.device import Device

REASONS = "clocks_event_reasons.active"
FIELDS = (
    "name", "driver_version", "pstate", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw",
    "power.limit", "temperature.gpu", "utilization.gpu", "memory.used", "memory.total",
    REASONS, "compute_mode", "persistence_mode",
)  # fmt: skip
PACKAGES = ("torch", "triton", "cuda-bindings", "cupy-cuda13x", "onnxruntime", "onnx", "numpy",
            "nvidia-cudnn-cu13", "nvidia-cublas", "tensorrt-rtx-cu13-libs")  # fmt: skip


def sample() -> dict[str, Any]:
    """One reading of nvidia-smi, empty where there is none. It changes no setting."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    if done.returncode:
        return {"error": (done.stdout + done.stderr).strip()[:300]}
    return dict(
        zip(FIELDS, (x.strip() for x in done.stdout.splitlines()[0].split(",")), strict=True)
    )


def facts(device: Device) -> dict[str, Any]:
    """Versions of everything, and the card at rest."""
    found: dict[str, Any] = {"python": platform.python_version(), "kernel": platform.release()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    found |= {"cpu": cpu[0].split(":")[1].strip() if cpu else "", "cores": len(cpu)}
    return found | device.facts() | {"card": sample()}


@contextmanager
def watched(every_s: float) -> Iterator[list[dict[str, Any]]]:
    """Readings of the card every so often, until the block ends. 0: only before and after."""
    readings, stop = [sample()], threading.Event()

    def watch() -> None:
        while not stop.wait(every_s):
            readings.append(sample())

    thread = threading.Thread(target=watch) if every_s and readings[0] else None
    if thread:
        thread.start()
    try:
        yield readings
    finally:
        stop.set()
        if thread:
            thread.join()
        readings.append(sample())


def extremes(readings: list[dict[str, Any]]) -> dict[str, Any]:
    """Least and greatest of each number; every throttle reason that was read."""
    found: dict[str, Any] = {}
    for field in ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "memory.used"):
        values = [float(r[field]) for r in readings if _is_number(r.get(field, ""))]
        if values:
            found[field] = [min(values), max(values)]
    reasons = {r[REASONS] for r in readings if REASONS in r}
    return found | {"reasons": sorted(reasons), "readings": len(readings)} if found else {}


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


@dataclass
class Context:
    """What a part is given: the device, its size, its time, and a place for what it has so far."""

    device: Device
    rehearse: bool
    out: Path
    name: str
    limit_s: float
    start_s: float
    rounds: int
    segment_s: float

    def left_s(self) -> float:
        return self.limit_s - (time.monotonic() - self.start_s)

    def keep(self, found: Mapping[str, Any]) -> None:
        """Save what is there so far: it counts if the part is cut off."""
        file = self.out / f"{self.name}.partial.json"
        file.write_text(json.dumps(found, indent=1))

    def say(self, text: str) -> None:
        print(f"  [{time.monotonic() - self.start_s:5.1f} s] {text}", file=sys.stderr, flush=True)
