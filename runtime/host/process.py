"""Starts a child process in a fresh Python interpreter.

So it inherits no thread, no GPU context and no package that it does not import.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from v2a.signals import ENDS, JOBS

# As `python -m MODULE DESCRIPTOR...`, but the current folder leaves the path before any import. A
# file there could take a module's place in the process that owns the motors. (`-P` needs 3.11;
# with it in the environment, as PYTHONSAFEPATH, the current folder is not on the path.)
_RUN: Final = (
    "import sys; '' in sys.path[:1] and sys.path.pop(0); import runpy; "
    "module = sys.argv[2]; del sys.argv[1:3]; "
    "runpy.run_module(module, run_name='__main__', alter_sys=True)"
)
_ROOT: Final = str(Path(__file__).resolve().parents[2])  # where this `runtime` package is


def start(module: str, *descriptors: int) -> subprocess.Popen[bytes]:
    """Run `module` of this installation with its inherited `descriptors` as arguments.

    The signals `ENDS` and `JOBS` are blocked until the child unblocks them.
    """
    # Our child processes multiply little, so numpy's BLAS needs no threads.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(search_path()),
        "OPENBLAS_NUM_THREADS": "1",
    }
    # `ps` shows which module it is.
    command = [sys.executable, "-c", _RUN, "-m", module, *map(str, descriptors)]
    # The child inherits the mask: no signal may reach it before it has handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS | JOBS)
    try:
        return subprocess.Popen(command, pass_fds=descriptors, env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def search_path() -> list[str]:
    """Where a child looks for modules: this installation first, never the current folder."""
    here = Path.cwd()
    others = [path for path in sys.path if path and Path(path).resolve() != here]
    return [_ROOT, *others]
