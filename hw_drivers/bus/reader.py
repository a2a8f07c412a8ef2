"""Reads blocks of many servos in every cycle: one request, and repetitions for silent servos.

The cost of a silent servo is bounded. It is asked again up to two times within the cycle's budget.
After three silent cycles it counts as gone. Then it is asked last, so that it delays no other
servo, and the reader waits for it no longer than a good answer takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from hw_drivers.bus.block import NEVER_NS, Block, BlockReading
from hw_drivers.bus.wire import BusWire, Heard, Request

Framing = Callable[[int, int, Sequence[int]], Request]  # (address, size, ids) -> the request

ScalarT = TypeVar("ScalarT", bound=np.generic)

_GONE_AFTER = 3
_FAST_FAILURES = _PROBES = 3
_SIZE_STEP = 2
_LATE_NS = 1_000_000_000


class _Ask(NamedTuple):
    request: Request
    dtype: np.dtype[np.void]  # of a row of its answer
    answer_ns: int


class BlockReader:
    """Reads blocks of `ids`. `one_by_one`: the servos know no request to several servos."""

    def __init__(
        self,
        wire: BusWire,
        ids: tuple[int, ...],
        framing: Framing,
        fast: Framing | None = None,
        *,
        one_by_one: bool = False,
    ) -> None:
        """`fast`: a quicker request that not every servo or adapter understands.

        It is never repeated in a cycle, and given up once the plain request finds more servos in
        three cycles in a row.
        """
        self._ids: Final = ids
        self._wire = wire
        self._framing = framing
        self._fast = fast
        self._fast_failures = 0
        self._refused = framing(0, 2, ids[:1]).refused
        self._one_by_one = one_by_one
        self._silent_cycles = dict.fromkeys(ids, 0)
        self._order = ids
        self._gone: frozenset[int] = frozenset()
        self._asks: dict[tuple[Block, Framing, tuple[int, ...], int], _Ask] = {}
        n = len(ids)
        self._heard_ns = np.full(n, NEVER_NS, np.int64)
        self._all, self._no_error = _fixed(np.ones(n, np.bool_)), _fixed(np.zeros(n, np.uint8))
        self._no_age = _fixed(np.zeros(n, np.int64))

    @property
    def is_fast(self) -> bool:
        """Whether the fast request is in use."""
        return self._fast is not None

    def probe(self, block: Block, timeout_s: float) -> None:
        """Try the fast request three times, and give it up unless one answer is clean."""
        if self._fast is None:
            return
        ask = self._ask(block, self._fast, self._ids)
        clock, wait_ns = self._wire.clock, round(timeout_s * 1e9)
        answers = (
            self._wire.ask(ask.request, ask.answer_ns, (), clock.now_ns() + wait_ns)
            for _ in range(_PROBES)
        )
        if not any(isinstance(answer, bytes) for answer in answers):
            self._fast = None

    def read(self, block: Block, budget_s: float) -> BlockReading:
        """Read `block` of all servos. Silent ones are asked again within `budget_s`."""
        start_ns = self._wire.clock.now_ns()
        budget_ns = round(budget_s * 1e9)
        if self._one_by_one:
            return self._reading(start_ns, block, self._each(start_ns, block, budget_ns))
        ask = self._ask(block, self._fast or self._framing, self._order)
        until_ns = start_ns + budget_ns // 2
        answer = self._wire.ask(ask.request, ask.answer_ns, self._gone, until_ns)
        if isinstance(answer, bytes):
            self._fast_failures = 0
            if not self._gone:
                return self._clean_reading(start_ns, block, ask, answer)
            heard = _heard(ask.request, answer)
        else:
            heard = self._ask_again(block, answer, start_ns + budget_ns)
        return self._reading(start_ns, block, heard)

    def _ask(self, block: Block, framing: Framing, ids: tuple[int, ...]) -> _Ask:
        address, size = self._span(block)
        key = block, framing, ids, size
        if key not in self._asks:
            request = framing(address, size, ids)
            dtype = block.dtype(request.address, request.data_at, request.row_bytes)
            answer_ns = self._wire.answer_ns(ids, request.answer_bytes)
            self._asks[key] = _Ask(request, dtype, answer_ns)
        return self._asks[key]

    def _span(self, block: Block) -> tuple[int, int]:
        """(address, size) to ask for now: the block, plus some bytes before it after a silence.

        Answers carry no number, so an answer that is late, even by several cycles, looks like one
        to the current request. So no request asks for the size of a late answer.
        """
        size, largest = block.size, block.size + block.address
        while size in self._wire.late_sizes and size + _SIZE_STEP <= largest:
            size += _SIZE_STEP
        return block.address - (size - block.size), size

    def _ask_again(self, block: Block, heard: Heard, end_ns: int) -> Heard:
        """Ask missing servos again, at most twice, by the plain request.

        In a fast answer a silent servo silences those behind it. The first missing servo may block
        the others, so it is asked last.
        """
        was_fast, clock = self._fast, self._wire.clock
        for share in (2, 1):
            missing = [i for i in self._order if i not in heard and i not in self._gone]
            now_ns = clock.now_ns()
            if not missing or now_ns >= end_ns:
                break
            ask = self._ask(block, self._framing, (*missing[1:], missing[0]))
            until_ns = now_ns + (end_ns - now_ns) // share
            answer = self._wire.ask(ask.request, ask.answer_ns, (), until_ns)
            heard.update(_heard(ask.request, answer) if isinstance(answer, bytes) else answer)
            if was_fast and not any(i not in heard for i in missing):
                self._blame_fast()
                was_fast = None
        return heard

    def _blame_fast(self) -> None:
        self._fast_failures += 1
        if self._fast_failures >= _FAST_FAILURES:
            self._fast = None

    def _each(self, start_ns: int, block: Block, budget_ns: int) -> Heard:
        heard = Heard(self._order)
        share_ns = budget_ns // len(self._order)
        for turn, servo_id in enumerate(self._order, start=1):
            ask = self._ask(block, self._framing, (servo_id,))
            until_ns = start_ns + share_ns * turn
            answer = self._wire.ask(ask.request, ask.answer_ns, self._gone, until_ns)
            heard.update(_heard(ask.request, answer) if isinstance(answer, bytes) else answer)
        return heard

    def _clean_reading(self, start_ns: int, block: Block, ask: _Ask, answer: bytes) -> BlockReading:
        rows = np.frombuffer(answer, ask.dtype, offset=ask.request.head_bytes)
        self._heard_ns.fill(start_ns)
        if self._wire.late_ns is not None:
            self._note_silence(start_ns, 0, ())
        return BlockReading(start_ns, self._all, self._no_error, self._no_age, True, block, rows)

    def _reading(self, start_ns: int, block: Block, heard: Heard) -> BlockReading:
        ids, (address, size) = self._ids, self._span(block)
        valid = np.array([i in heard and not self._refused(heard[i]) for i in ids])
        error = np.array([heard[i].error if i in heard else 0 for i in ids], np.uint8)
        blank = bytes(size)
        data = b"".join(
            heard[i].params if good else blank for i, good in zip(ids, valid, strict=True)
        )
        rows = np.frombuffer(data, block.dtype(address, 0, size))
        self._heard_ns[valid] = start_ns
        never = self._heard_ns == NEVER_NS
        age_ns = np.where(never, NEVER_NS, start_ns - self._heard_ns)
        self._note_silence(start_ns, size, [i for i in ids if i not in heard])
        return BlockReading(start_ns, valid, error, age_ns, bool(valid.all()), block, rows)

    def _note_silence(self, now_ns: int, size: int, silent: Sequence[int]) -> None:
        wire = self._wire
        if silent:
            wire.late_ns = now_ns
            wire.late_sizes.append(size)
        elif wire.late_ns is not None and now_ns - wire.late_ns > _LATE_NS:
            wire.late_ns = None
            wire.late_sizes.clear()
        for servo_id, cycles in self._silent_cycles.items():
            self._silent_cycles[servo_id] = cycles + 1 if servo_id in silent else 0
        cycles_of = self._silent_cycles
        self._gone = frozenset(i for i in self._ids if cycles_of[i] >= _GONE_AFTER)
        self._order = tuple(sorted(self._ids, key=lambda i: i in self._gone))


def _heard(request: Request, answer: bytes) -> Heard:
    heard = Heard(request.ids)
    for status in request.parser().feed(answer):
        heard.take(status)
    return heard


def _fixed(array: npt.NDArray[ScalarT]) -> npt.NDArray[ScalarT]:
    """Make `array` [n] read only: many results share it."""
    array.flags.writeable = False
    return array
