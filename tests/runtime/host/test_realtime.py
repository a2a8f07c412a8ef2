"""Real time: what is refused is said with what to do, and can be made an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from runtime.host.realtime import REFUSED, demand
from tests.conftest import REPOSITORY
from v2a.errors import ConfigError

CLAIM = """
import gc, json, os
from runtime.host.realtime import claim

def refuse(*_):
    raise PermissionError(1, "Operation not permitted")

os.sched_setscheduler = refuse
given = claim(core=min(os.sched_getaffinity(0)))
print(json.dumps([given, gc.isenabled(), len(os.sched_getaffinity(0))]))
"""


def test_each_thing_is_asked_for_and_a_refusal_says_what_to_do() -> None:
    # In a process of its own: what it is given can't be given back.
    done = subprocess.run(
        [sys.executable, "-c", CLAIM], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    given, collects, cores = json.loads(done.stdout)
    assert given["scheduling"] == (
        f"{REFUSED}Operation not permitted (grant rtprio 50 in /etc/security/limits.conf)"
        if os.geteuid()
        else f"{REFUSED}Operation not permitted (this is root in a container or cgroup: start the "
        "container with --cap-add SYS_NICE --ulimit rtprio=50, or give the cgroup "
        "cpu.rt_runtime_us)"
    )
    assert given["memory"] == "locked" or given["memory"].startswith(REFUSED)
    assert (given["garbage collection"], collects) == ("off", False)
    assert cores == 1


def test_a_demand_names_everything_that_was_refused() -> None:
    demand({"scheduling": "fifo 50", "memory": "locked"})
    with pytest.raises(ConfigError, match=r"scheduling refused: no; core refused: no such core"):
        demand(
            {
                "scheduling": f"{REFUSED}no",
                "memory": "locked",
                "core": f"{REFUSED}no such core",
            }
        )
