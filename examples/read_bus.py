"""Read the position and the temperature of every Dynamixel servo on a bus.

    v2a motors simulate --model xl330-m288 --ids 1,2,3 --link /tmp/arm    # or plug in real ones
    python examples/read_bus.py /tmp/arm

Positions count from tick 0. A servo that does not answer is shown as missing, never as zero.
Nothing is written.
"""

from __future__ import annotations

import sys
from contextlib import closing

from hw_drivers.bus.port import SerialPort
from hw_drivers.dynamixel.bus import DynamixelBus
from hw_drivers.dynamixel.models import MODELS
from v2a.clock import MonotonicClock

BAUD = 1_000_000
REGISTERS = ("present_position", "present_temperature")
BY_NUMBER = {model.number: model for model in MODELS.values()}


def main(path: str) -> None:
    clock = MonotonicClock()
    with closing(SerialPort(path, BAUD)) as port:
        found = DynamixelBus(port, clock, {}).scan()  # id -> what the servo says of itself
        models = {servo_id: BY_NUMBER[pong.model_number] for servo_id, pong in found.items()}
        if not models:
            sys.exit(f"{path}: no servo answers at {BAUD} baud")
        bus = DynamixelBus(port, clock, models)
        block = bus.block(REGISTERS, list(models))
        answer = bus.reader(block.ids).read(block, budget_s=0.1)  # all servos, one request
        position, temperature = (answer.reading(name, clock.now_ns()) for name in REGISTERS)
        for k, servo_id in enumerate(block.ids):
            name = models[servo_id].name
            if position.valid[k]:
                celsius = temperature.value[k]
                print(f"{servo_id} {name}: {position.value[k]:.3f} rad, {celsius:.0f} deg C")
            else:
                print(f"{servo_id} {name}: no answer")


if __name__ == "__main__":
    main(sys.argv[1])
