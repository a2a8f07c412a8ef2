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

from runtime.recording.sinks import End, SinkGroup, receive, send
from v2a.errors import V2AError

NICE: Final = 10


def main() -> None:
    """Serve the policy's process at the connection whose descriptor is the only argument."""
    os.nice(NICE)
    connection = Connection(int(sys.argv[1]))
    try:
        sinks = SinkGroup(receive(connection))
    except (V2AError, OSError) as error:
        send(connection, error)
        return
    except EOFError:
        return  # the policy's process has died or ended before it
    sinks.close(_serve(connection, sinks))
    with suppress(ConnectionError):
        send(connection, sinks.status)


def _serve(connection: Connection, sinks: SinkGroup) -> dict[str, Any] | None:
    """Until the end, whose summary this returns, or None where the policy's process died."""
    status = None
    with suppress(EOFError, ConnectionError):
        while True:
            if sinks.status != status:
                status = sinks.status
                send(connection, status)
            batch = receive(connection)
            if isinstance(batch, End):
                return batch.summary
            sinks.take(batch)
    return None


if __name__ == "__main__":
    main()
