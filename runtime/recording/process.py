"""The recorder process: `python -m runtime.recording.process FD ...`, started by `RecorderProcess`.

The process writes the messages of the policy's process to the file and feeds the other sinks. It
runs at low priority and has a GIL of its own. It ends when the policy's process says so or dies. It
ignores the signals that end a run, because it still has to write the end of the run.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Final

from runtime.recording.sinks import End, SinkGroup, receive, send
from v2a.errors import V2AError
from v2a.output import expend_stderr

NICE: Final = 10


def main() -> None:
    """Serve the policy's process.

    The first argument is the descriptor of the connection to it. The others belong to sinks.
    """
    expend_stderr()
    os.nice(NICE)
    connection = Connection(int(sys.argv[1]))
    try:
        sinks = SinkGroup(receive(connection))
    except (V2AError, OSError) as error:
        send(connection, error)
        return
    except EOFError:
        return  # the policy's process died or ended before it sent the setup
    sinks.close(_serve(connection, sinks))
    with suppress(ConnectionError):
        send(connection, sinks.status)


def _serve(connection: Connection, sinks: SinkGroup) -> End | None:
    """Take batches until the end. Returns it, or None if the policy's process died."""
    status = None
    with suppress(EOFError, ConnectionError):
        while True:
            if sinks.status != status:
                status = sinks.status
                send(connection, status)
            batch = receive(connection)
            if isinstance(batch, End):
                return batch
            sinks.take(batch)
    return None


if __name__ == "__main__":
    main()
