"""The recorder process: `python -m runtime.recording.process FD`, started by `RecorderProcess`.

It takes what the policy's process sends, writes it down and feeds the other sinks, at low priority
and with a GIL of its own. It ends when the policy's process says so or dies, and never by a signal
that ends the run: it has the end of the run to write.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final

from runtime.recording.sinks import Desk, End, receive, send
from v2a.errors import V2AError

NICE: Final = 10


def main() -> None:
    """Serve the policy's process at the connection whose descriptor is the only argument."""
    os.nice(NICE)
    connection = Connection(int(sys.argv[1]))
    try:
        desk = Desk(receive(connection))
    except (V2AError, OSError) as error:
        send(connection, error)
        return
    except EOFError:
        return  # the policy's process has died or ended before it
    desk.close(_serve(connection, desk))
    with suppress(ConnectionError):
        send(connection, desk.told)


def _serve(connection: Connection, desk: Desk) -> dict[str, Any] | None:
    """Until the end, whose summary this returns, or None where the policy's process died."""
    told = None
    with suppress(EOFError, ConnectionError):
        while True:
            if desk.told != told:
                told = desk.told
                send(connection, told)
            batch = receive(connection)
            if isinstance(batch, End):
                return batch.summary
            desk.take(batch)
    return None


if __name__ == "__main__":
    main()
