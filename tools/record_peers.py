"""Records what independent programs send and understand, as `peers.json` for the tests.

The two Feetech SDKs install the same folder and overwrite each other. So each peer has a folder and
a process of its own:

    for p in feetech-servo-sdk ftservo-python-sdk rustypot; do
        pip install --target PEERS/$p $p; done
    PYTHONPATH=. python tools/record_peers.py PEERS > tests/hw_drivers/peers.json

Each entry of "sent" is (name of our function without make_, its arguments, the peer's bytes).
With V2A_PEERS=PEERS the tests also record again and compare the result with the file.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import select
import subprocess
import sys
import threading
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hw_drivers.dynamixel import packet as dynamixel
from hw_drivers.feetech import packet as feetech

# e-manual, Protocol 2.0, the example of "Fast Sync Read (0x8A)".
FAST_ANSWER_OF_THE_MANUAL = bytes.fromhex(
    "FFFFFD00 FE 1900 55 0003A60000008408 00071F08000016CA 0004FF030000D19E"
)

Sent = list[tuple[str, list[Any], str]]


class Wire:
    """A port for a vendor SDK: keeps the bytes sent, and returns the bytes in `incoming`."""

    def __init__(self) -> None:
        self.sent, self.incoming, self.is_using = b"", b"", False

    def clearPort(self) -> None: ...  # noqa: N802 (the SDK's names, here and below)

    def setPacketTimeout(self, _length: int) -> None: ...  # noqa: N802

    def isPacketTimeout(self) -> bool:  # noqa: N802
        return True

    def writePort(self, data: list[int]) -> int:  # noqa: N802
        self.sent += bytes(data)
        return len(data)

    def readPort(self, length: int) -> list[int]:  # noqa: N802
        data, self.incoming = self.incoming[:length], self.incoming[length:]
        return list(data)


def feetech_sdk(wire: Wire, call: Callable[..., Any], parse: Callable[[], Any]) -> dict[str, Any]:
    """Record an SDK. `call(method, *args)` calls its packet handler; `parse()` reads a packet."""
    draw = random.Random(4)
    sent: Sent = []

    def record(name: str, args: list[Any], method: str, *sdk_args: Any) -> None:
        wire.sent, wire.is_using = b"", False
        call(method, *sdk_args)
        sent.append((name, args, wire.sent.hex()))

    for _ in range(8):
        id_, address, size = draw.randrange(253), draw.randrange(100), draw.randrange(1, 16)
        data, ids = draw.randbytes(size), draw.sample(range(253), 5)
        blocks = {i: draw.randbytes(size) for i in ids}
        flat = [byte for i, block in blocks.items() for byte in (i, *block)]
        record("ping", [id_], "ping", id_)
        record("read", [id_, address, size], "readTx", id_, address, size)
        record("write", [id_, address, data.hex()], "writeTxOnly", id_, address, size, list(data))
        record(
            "reg_write",
            [id_, address, data.hex()],
            "regWriteTxOnly",
            id_,
            address,
            size,
            list(data),
        )
        record("action", [id_], "action", id_)
        record("sync_read", [address, size, ids], "syncReadTx", address, size, ids, len(ids))
        record(
            "sync_write",
            [address, size, {str(i): block.hex() for i, block in blocks.items()}],
            *("syncWriteTxOnly", address, size, flat, len(flat)),
        )
    heard = []
    for _ in range(20):
        params = draw.randbytes(draw.randrange(1, 16))
        status = feetech.make_status(draw.randrange(253), draw.randrange(128), params)
        wire.incoming = status
        raw, result = parse()
        assert result == 0, "the SDK's COMM_SUCCESS"
        heard.append((status.hex(), raw[2], raw[4], bytes(raw[5:-1]).hex()))
    return {"sent": sent, "heard": heard}


def feetech_servo_sdk() -> dict[str, Any]:
    import scservo_sdk

    wire, handler = Wire(), scservo_sdk.PacketHandler(0)
    return feetech_sdk(
        wire,
        lambda method, *args: getattr(handler, method)(wire, *args),
        lambda: handler.rxPacket(wire),
    )


def ftservo_python_sdk() -> dict[str, Any]:
    import scservo_sdk

    wire = Wire()
    sts, scs = scservo_sdk.sms_sts(wire), scservo_sdk.scscl(wire)
    words = []
    for order, handler in (("little", sts), ("big", scs)):
        for bit in (10, 11, 15):
            for value in (-(2**bit) + 1, -300, -1, 0, 1, 300, 2**bit - 1):
                raw = handler.scs_toscs(value, bit)
                stored = bytes((handler.scs_lobyte(raw), handler.scs_hibyte(raw)))
                assert handler.scs_tohost(handler.scs_makeword(*stored), bit) == value
                words.append((order, bit, value, stored.hex()))
    recorded = feetech_sdk(wire, lambda method, *args: getattr(sts, method)(*args), sts.rxPacket)
    names = {"sts3215": "SMS_STS_", "scs0009": "SCSCL_"}
    addresses = {
        model: {
            name.removeprefix(prefix): value
            for name, value in vars(scservo_sdk).items()
            if name.startswith(prefix)
            and not name.removeprefix(prefix)[0].isdigit()  # those are baud rates
            and not name.endswith("_H")
        }
        for model, prefix in names.items()
    }
    return recorded | {"words": words, "addresses": addresses}


class Terminal:
    """A pseudo terminal whose other end answers each request with `reply`."""

    def __init__(self) -> None:
        self.master, slave = os.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)

    def exchange(self, call: Callable[[], Any], reply: bytes = b"") -> tuple[str, Any]:
        """Run `call`. Return the bytes that it sends, and its result for `reply`."""
        sent = b""

        def answer() -> None:
            nonlocal sent
            while select.select([self.master], [], [], 0.05 if sent else 1.0)[0]:
                sent += os.read(self.master, 1024)
            os.write(self.master, reply)

        thread = threading.Thread(target=answer)
        thread.start()
        value = call()
        thread.join()
        return sent.hex(), value


def rustypot() -> dict[str, Any]:
    import rustypot

    classes = {
        "sts3215": rustypot.Sts3215PyController,
        "scs0009": rustypot.Scs0009PyController,
        "xl330-m288": rustypot.Xl330PyController,
        "xl430-w250": rustypot.Xl430PyController,
    }
    recorded: dict[str, Any] = {}
    for name, cls in classes.items():
        definition = cls.definition()
        terminal = Terminal()
        servo = cls(terminal.path, 1_000_000, 0.5)
        protocol = feetech if definition.protocol == 1 else dynamixel
        recorded[name] = {
            "models": definition.models,
            "word_order": definition.word_order,
            "supports_sync_read": definition.supports_sync_read,
            "baud_rates": {str(v): k for k, v in definition.baudrates.items()},
            "registers": [[r.name, r.addr, r.size, r.sign_bit] for r in definition.registers()],
            "exchanges": rustypot_exchanges(servo, terminal, protocol),
        }
    return recorded


def rustypot_exchanges(servo: Any, terminal: Terminal, protocol: Any) -> list[Any]:
    """Return (name of our function, arguments, rustypot's bytes, our replies, what it read)."""
    done = protocol.make_status(7, 0)
    pong = done if protocol is feetech else protocol.make_status(7, 0, b"\x06\x04\x26")
    one = protocol.make_status(7, 0, b"\x12\x34")
    two = one + protocol.make_status(9, 0, b"\x56\x78")
    ids, data = [7, 9], [[1, 2], [3, 4]]
    blocks = {"7": "0102", "9": "0304"}
    table = [
        ("ping", [7], lambda: servo.ping(7), pong),
        ("read", [7, 56, 2], lambda: servo.read_raw_data(7, 56, 2), one),
        ("write", [7, 42, "0102"], lambda: servo.write_raw_data(7, 42, [1, 2]), done),
        ("sync_read", [56, 2, ids], lambda: servo.sync_read_raw_data(ids, 56, 2), two),
        ("sync_write", [42, 2, blocks], lambda: servo.sync_write_raw_data(ids, 42, data), b""),
    ]
    if protocol is dynamixel:
        table.append(
            (
                "fast_sync_read",
                [132, 4, [3, 7, 4]],
                lambda: (
                    servo.set_fast_sync_read(True) or servo.sync_read_raw_data([3, 7, 4], 132, 4)
                ),
                FAST_ANSWER_OF_THE_MANUAL,
            )
        )
    exchanges = []
    for name, args, call, reply in table:
        sent, value = terminal.exchange(call, reply)
        read = [list(v) for v in value] if name.endswith("sync_read") else value
        exchanges.append((name, args, sent, reply.hex(), list(read) if name == "read" else read))
    return exchanges


# Peer -> the function that records it.
PEERS: dict[str, Callable[[], dict[str, Any]]] = {
    "feetech-servo-sdk": feetech_servo_sdk,
    "ftservo-python-sdk": ftservo_python_sdk,
    "rustypot": rustypot,
}


def record(name: str, peers: Path) -> Any:
    """Record the peer installed at `peers`/`name`, in a process of its own."""
    path = os.pathsep.join([str(peers / name), *sys.path])
    run = subprocess.run(
        [sys.executable, __file__, "--one", name],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise RuntimeError(f"{name}: {run.stderr}")
    return json.loads(run.stdout)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        version = importlib.metadata.version(sys.argv[2])
        print(json.dumps({"version": version} | PEERS[sys.argv[2]]()))
    else:
        rows = {name: record(name, Path(sys.argv[1])) for name in PEERS}
        print("{\n" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in rows.items()) + "\n}")
