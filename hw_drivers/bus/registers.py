"""What the register tables of every servo family are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Item:
    """One register. `limits` are the raw values that may be written; None: read only.

    A negative number is two's complement (`signed`), or a magnitude with a sign of its own at
    `sign_bit` (Feetech, a different bit for each register).
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
        """The raw value as the servo stores it. Raises OverflowError where it does not fit."""
        if self.sign_bit is None:
            return raw.to_bytes(self.size, self.order, signed=self.signed)
        if abs(raw) >> self.sign_bit:
            raise OverflowError(f"magnitude of {raw} does not fit below sign bit {self.sign_bit}")
        return (abs(raw) | (raw < 0) << self.sign_bit).to_bytes(self.size, self.order)

    def unpack(self, data: bytes | bytearray) -> int:
        """The raw value of stored bytes."""
        raw = int.from_bytes(data, self.order, signed=self.signed)
        if self.sign_bit is None:
            return raw
        magnitude = raw & (1 << self.sign_bit) - 1
        return -magnitude if raw >> self.sign_bit & 1 else magnitude


@dataclass(frozen=True, slots=True)
class Model:
    """The register table of a servo model, in the firmware versions from `firmware[0]` to
    `firmware[1]`. `number` is what the servo has in its model_number register. Dynamixel: fast
    sync and fast bulk read are understood from version `fast_read_firmware` on (None: never)."""

    name: str
    number: int
    items: dict[str, Item]
    firmware: tuple[int, int] = (0, 255)
    fast_read_firmware: int | None = None


def find_model(models: Iterable[Model], number: int, firmware: int) -> Model | None:
    """The table for a servo that says it has this model number and firmware; None: not known."""
    for model in models:
        if model.number == number and model.firmware[0] <= firmware <= model.firmware[1]:
            return model
    return None
