"""Starts a child process in a fresh Python interpreter.

So it inherits no thread, no GPU context and no package that it does not import.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start(module: str, descriptor: int) -> subprocess.Popen[bytes]:
    """Start `python -m module DESCRIPTOR`. `SIGNALS` are blocked until the child unblocks them."""
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    # Our child processes multiply little, so numpy's BLAS needs no threads.
    environment = {**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, str(descriptor)]
    # The child inherits the mask: no signal may reach it before it has handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(command, pass_fds=[descriptor], env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
