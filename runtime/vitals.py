"""What no message carries: counters and the servos' health, a few times a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hw_drivers.robot.robot import Health

if TYPE_CHECKING:  # the recorder process reads `Vitals` and needs no worker
    from runtime.workers import Workers


@dataclass(frozen=True, slots=True)
class Vitals:
    """As of `t_ns`, since the start of the run. `counts` is worker -> event -> how often."""

    t_ns: int
    ticks: int
    missed_ticks: dict[str, int]
    counts: dict[str, dict[str, int]]
    health: Health | None
    torque_fault: str | None
    epoch: int


def vitals_of(workers: Workers) -> Vitals:
    control = workers.control
    return Vitals(
        t_ns=workers.clock.now_ns(),
        ticks=control.ticks,
        missed_ticks=dict(control.missed_ticks),
        counts=counts_of(workers),
        health=control.health,
        torque_fault=control.torque_fault,
        epoch=workers.mailboxes.epoch.number,
    )


def counts_of(workers: Workers) -> dict[str, dict[str, int]]:
    """How often each event came up, by worker."""
    return {
        "control": dict(workers.control.counts),
        "safety": dict(workers.control.safety.counts),
        "system1": dict(workers.system1.counts),
        "system2": dict(workers.system2.counts),
        "camera": dict(workers.camera.counts),
    }
