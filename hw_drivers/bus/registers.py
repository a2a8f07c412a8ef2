"""Registers and models: what the register tables of all servo families consist of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Item:
    """One register: where it lies, which raw values it takes, and what a raw value means.

    `limits` are the lowest and highest raw value that may be written; None means read only.
    `scale` is the size of one raw unit in the SI `unit`. A negative number is stored as two's
    complement (`signed`), or as a magnitude with its sign in bit `sign_bit` (Feetech).
    """

    address: int
    size: int
    limits: tuple[int, int] | None = None
    initial: int = 0
    signed: bool = False
    scale: float = 1.0
    unit: str = ""
    sign_bit: int | None = None
    order: Literal["little", "big"] = "little"

    def pack(self, raw: int) -> bytes:
        """The bytes that the servo stores for `raw`. Raises OverflowError if it does not fit."""
        if self.sign_bit is None:
            return raw.to_bytes(self.size, self.order, signed=self.signed)
        if abs(raw) >> self.sign_bit:
            raise OverflowError(f"magnitude of {raw} does not fit below sign bit {self.sign_bit}")
        return (abs(raw) | (raw < 0) << self.sign_bit).to_bytes(self.size, self.order)

    def unpack(self, data: bytes | bytearray) -> int:
        """The raw value of the stored bytes `data`."""
        raw = int.from_bytes(data, self.order, signed=self.signed)
        if self.sign_bit is None:
            return raw
        magnitude = raw & (1 << self.sign_bit) - 1
        return -magnitude if raw >> self.sign_bit & 1 else magnitude


@dataclass(frozen=True, slots=True)
class Model:
    """The register table of a servo model.

    `number` is the value of the servo's model_number register. The table holds for the firmware
    versions `firmware[0]` to `firmware[1]`. From version `fast_read_firmware` on, a Dynamixel
    understands fast sync read and fast bulk read; with None it never does.
    """

    name: str
    number: int
    items: dict[str, Item]
    firmware: tuple[int, int] = (0, 255)
    fast_read_firmware: int | None = None

    @property
    def rad_per_tick(self) -> float:
        """Radians per raw unit of a position."""
        return self.items["present_position"].scale

    @property
    def turn_ticks(self) -> int:
        """Ticks of one turn, or of the whole range of a servo that can't turn round."""
        limits = self.items["max_position_limit"].limits
        return limits[1] + 1 if limits else 0


def find_model(models: Iterable[Model], number: int, firmware: int) -> Model | None:
    """The table for a servo of this model number and firmware version; None if it is unknown."""
    for model in models:
        if model.number == number and model.firmware[0] <= firmware <= model.firmware[1]:
            return model
    return None
