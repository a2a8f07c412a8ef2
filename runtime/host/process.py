"""A process of our own: a fresh interpreter, so that neither threads nor a GPU's context come with
it, nor any package that it does not import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start(module: str, descriptor: int) -> subprocess.Popen[bytes]:
    """Run `python -m module DESCRIPTOR`. `SIGNALS` are blocked in it until it unblocks them."""
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    # numpy's BLAS would start threads, and neither of our processes multiplies much.
    environment = {**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, str(descriptor)]
    # Inherited: a signal must not reach it before it has its handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(command, pass_fds=[descriptor], env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
