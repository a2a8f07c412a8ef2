"""The vendor's SDK at the other end of a pseudo terminal."""

from __future__ import annotations

from collections.abc import Iterator

import dynamixel_sdk as sdk
import pytest

from hw_drivers.virtual.pty import PtyServer

PATIENCE_MS = 5000.0  # longer than any answer takes on a busy machine
IMPATIENCE_MS = 60.0  # where no answer, or no good one, will come


class PatientPort(sdk.PortHandler):  # type: ignore[misc] # the SDK has no types
    """The SDK's port, but for its 34 ms of patience: it shares this process with the servos, and a
    busy machine may well take longer."""

    patience_ms = PATIENCE_MS

    def setPacketTimeout(self, packet_length: int) -> None:  # noqa: N802 (the SDK's name)
        self.setPacketTimeoutMillis(self.patience_ms)


@pytest.fixture
def port(pty: PtyServer) -> Iterator[PatientPort]:
    port = PatientPort(pty.path)
    assert port.openPort()
    yield port
    port.closePort()


@pytest.fixture
def handler() -> sdk.Protocol2PacketHandler:
    return sdk.PacketHandler(2.0)
