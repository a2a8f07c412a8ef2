"""A block of neighbouring registers of many servos: which bytes, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_drivers.bus.registers import Item, Model
from v2a.errors import BusError

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NO_RAW = np.iinfo(np.int64).min  # the raw value of an invalid reading; no register can hold it
NEVER_NS = np.iinfo(np.int64).max  # the age of a value that never arrived


@dataclass(frozen=True, slots=True)
class Reading:
    """One quantity of n servos in SI units.

    `value` float64 [n] is NaN where `valid` bool [n] is False. `age_ns` int64 [n] is the time since
    the last request that brought a value, NEVER_NS if none did.
    """

    value: F64
    valid: Mask
    age_ns: I64


@dataclass(frozen=True, slots=True)
class _Field:
    item: Item
    scale: F64  # [n]
    known: Mask  # [n]: which servos have the register


class Block:
    """The registers `names` of n servos, which may be of several models."""

    def __init__(self, models: Mapping[int, Model], names: Sequence[str]) -> None:
        """`models`: id -> model, in the order of all results.

        Where a servo lacks a register, its reading is not valid. Raises BusError if no servo has
        the register, or if it lies at different addresses.
        """
        self.ids = tuple(models)
        self._fields = {name: _field(models, name) for name in names}
        items = [field.item for field in self._fields.values()]
        self.address = min(item.address for item in items)
        self.size = max(item.address + item.size for item in items) - self.address
        if self.size % 2 and self.address:  # an even size: the CRC is computed two bytes at a time
            self.address, self.size = self.address - 1, self.size + 1

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def dtype(self, address: int, data_at: int, row_bytes: int) -> np.dtype[np.void]:
        """The dtype of rows of `row_bytes`, in which the register at `address` is at `data_at`."""
        offsets = [field.item.address - address + data_at for field in self._fields.values()]
        formats = [_format(field.item) for field in self._fields.values()]
        names = list(self._fields)
        return np.dtype(
            {"names": names, "formats": formats, "offsets": offsets, "itemsize": row_bytes}
        )

    def raw(self, name: str, rows: npt.NDArray[np.void]) -> npt.NDArray[Any]:
        """The register's raw values, integers [n], from `rows` [n] of this block's dtype."""
        raw: npt.NDArray[Any] = rows[name]
        sign_bit = self._fields[name].item.sign_bit
        if sign_bit is None:
            return raw
        magnitude = (raw & (1 << sign_bit) - 1).astype(np.int64)
        return np.where(raw >> sign_bit & 1, -magnitude, magnitude)

    def known(self, name: str) -> Mask:
        """bool [n]: which servos have this register."""
        return self._fields[name].known

    def scale(self, name: str) -> F64:
        """SI units per raw unit, float64 [n]."""
        return self._fields[name].scale


@dataclass(frozen=True, slots=True)
class BlockReading:
    """The answers of n servos to one reading, which began at `t_ns`.

    `valid` bool [n]: the servo answered and did not refuse. `error` uint8 [n]: the error byte of
    its answer, 0 without one; in a valid answer it reports an alarm. `age_ns` int64 [n]: the time
    since its last answer. `rows` [n] hold the bytes.
    """

    t_ns: int
    valid: Mask
    error: npt.NDArray[np.uint8]
    age_ns: I64
    all_valid: bool
    block: Block
    rows: npt.NDArray[np.void]

    def raw(self, name: str) -> I64:
        """The raw values int64 [n], NO_RAW where not valid."""
        raw = self.block.raw(name, self.rows).astype(np.int64)
        return np.where(self.valid & self.block.known(name), raw, NO_RAW)

    def si(self, name: str) -> F64:
        """The values in SI units, float64 [n], NaN where not valid. Every servo has `name`."""
        value: F64 = self.block.raw(name, self.rows) * self.block.scale(name)
        return value if self.all_valid else np.where(self.valid, value, np.nan)

    def reading(self, name: str, now_ns: int) -> Reading:
        """The values in SI units, with their validity and their age at `now_ns`."""
        valid = self.valid & self.block.known(name)
        value = np.where(valid, self.block.raw(name, self.rows) * self.block.scale(name), np.nan)
        heard = self.age_ns != NEVER_NS
        age_ns = np.where(heard, self.age_ns + (now_ns - self.t_ns), NEVER_NS)
        return Reading(value, valid, age_ns)


def _field(models: Mapping[int, Model], name: str) -> _Field:
    items = {id_: model.items[name] for id_, model in models.items() if name in model.items}
    if not items:
        first, model = next(iter(models.items()))
        raise BusError(f"servo {first}: a {model.name} has no register {name!r}")
    first, item = next(iter(items.items()))
    for servo_id, other in items.items():
        if other.order != item.order:
            raise BusError(
                f"servo {servo_id}: its {name} is {other.order} endian, that of servo {first} is "
                f"{item.order} endian; put them on buses of their own"
            )
        if (other.address, other.size) != (item.address, item.size):
            raise BusError(
                f"servo {servo_id}: {name} is at {other.address} ({other.size} bytes), at "
                f"{item.address} ({item.size} bytes) in servo {first}; access them one by one"
            )
    scale = np.array([items[i].scale if i in items else np.nan for i in models])
    return _Field(item, scale, np.array([i in items for i in models]))


def _format(item: Item) -> str:
    return ("<" if item.order == "little" else ">") + ("i" if item.signed else "u") + str(item.size)
