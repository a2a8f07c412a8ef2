"""The table of workers: what each row gives its thread."""

from __future__ import annotations

import os
import threading

import pytest

from runtime.config.robot_yaml import RunConfig
from runtime.threads import Stopping, WorkerThreads
from runtime.workers import WORKERS
from tests.runtime.conftest import run_config

CORES = os.sched_getaffinity(0)


def with_core(core: int | None) -> RunConfig:
    return run_config(control={"rate_hz": 50.0, "core": core})


def allowed(cores: set[int] | None) -> set[int]:
    """The cores that a thread may use when it was started with `cores`."""
    seen: list[set[int]] = []

    def loop(stopping: Stopping) -> None:
        seen.append(os.sched_getaffinity(threading.get_native_id()))

    threads = WorkerThreads()
    threads.start("probe", loop, cores=cores)
    threads.stop("probe")
    threads.raise_error()
    return seen[0]


def test_only_the_recorder_outlives_the_others_and_gives_way_to_them() -> None:
    assert [(row.name, row.outlives, row.nice) for row in WORKERS] == [
        ("recorder", True, 10),
        ("camera", False, 0),
        ("system2", False, 0),
        ("system1", False, 0),
        ("control", False, 0),
    ]


def test_rates_are_bounded_by_the_camera_and_the_periods() -> None:
    config = run_config(system1={"period_s": 0.2}, system2={"period_s": 0.5})
    rates = {row.name: row.rate_hz(config) for row in WORKERS}
    assert rates == {"recorder": 20, "camera": 20, "system2": 2, "system1": 5, "control": 50}
    free = run_config(system1={"period_s": 0.001}, system2={"period_s": 0.0})
    assert {row.rate_hz(free) for row in WORKERS if row.name in ("system1", "system2")} == {20.0}


@pytest.mark.skipif(len(CORES) < 2, reason="one core has nothing to keep off")
def test_the_policys_threads_keep_off_the_control_processs_core() -> None:
    taken = min(CORES)
    for row in WORKERS:
        expected = CORES if row.name == "control" else CORES - {taken}
        assert allowed(row.cores(with_core(taken))) == expected, row.name


def test_without_a_core_of_its_own_every_thread_may_use_all() -> None:
    assert [row.cores(with_core(None)) for row in WORKERS] == [None] * len(WORKERS)
