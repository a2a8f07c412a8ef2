"""Runs System 2 in another process. Without CUDA MPS the GPU alternates between processes."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

from gpu.device import Device
from gpu.released import config_of, random_policy
from gpu.system2 import System2


def _work(kind: str, rehearse: bool, options: dict[str, bool], shared: dict[str, Any]) -> None:
    """Runs in the child: a pass after another while `go` is set, until `go` is negative."""
    device = Device(kind)
    policy = random_policy(config_of(rehearse), device)
    lane = device.lane()
    launch = lane.capture(System2(policy, device, **options).whole)
    shared["ready"].set()
    while shared["go"].value >= 0:
        if not shared["go"].value:
            time.sleep(0.002)
            continue
        launch()
        lane.wait()
        shared["passes"].value += 1


class OtherProcess:
    """Has `start` and `stop` of `gpu.contention.Load`."""

    def __init__(self, device: Device, rehearse: bool, **options: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._shared: dict[str, Any] = {
            "ready": context.Event(), "go": context.Value("i", 0), "passes": context.Value("q", 0)
        }  # fmt: skip
        self._process = context.Process(
            target=_work, args=(device.kind, rehearse, options, self._shared), daemon=True
        )
        self._process.start()

    def ready(self, timeout_s: float) -> None:
        """RuntimeError where the child is not up by then."""
        if not self._shared["ready"].wait(timeout_s):
            raise RuntimeError(f"the other process was not ready after {timeout_s} s")

    def start(self) -> None:
        self._before, self._start_ns = self._shared["passes"].value, time.perf_counter_ns()
        self._shared["go"].value = 1

    def stop(self) -> float:
        """Passes a second."""
        self._shared["go"].value = 0
        seconds = (time.perf_counter_ns() - self._start_ns) / 1e9
        return float(self._shared["passes"].value - self._before) / seconds

    def close(self) -> None:
        self._shared["go"].value = -1
        self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()
