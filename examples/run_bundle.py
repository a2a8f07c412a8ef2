"""Run a policy bundle from Python: the demo's, for five seconds, on a virtual robot.

    python examples/run_bundle.py /tmp/run

No robot and no camera are needed: the servos are virtual and the pictures are noise, so the policy
moves the arm without sense. The recording is in the folder, for `v2a record info` and
`examples/read_recording.py`. For your own robot, load its YAML file, open its camera, and give
"real" instead of "virtual": then `arm` turns the torque on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hw_drivers.cameras.camera import open_camera
from runtime.config.robot_yaml import RunConfig
from runtime.summary import as_text
from runtime.supervisor import Runtime
from runtime.workers import build_workers
from v2a.bundle import load_bundle
from v2a.clock import MonotonicClock
from v2a.config import load_yaml
from v2a.spans import Tracer

DEMO = Path(__file__).parents[1] / "demo"
SECONDS = 5.0


def main(folder: Path) -> None:
    config = load_yaml(DEMO / "robot.yaml", RunConfig)
    bundle = load_bundle(DEMO / "bundle")  # checks every file against its checksum
    clock = MonotonicClock()
    camera = open_camera("synthetic:", (192, 192), fps=20, clock=clock)
    workers = build_workers(bundle, "virtual", camera, config, clock, Tracer())
    runtime = Runtime(workers, folder)
    with runtime:  # connects, warms the engines, starts the threads
        runtime.arm()
        runtime.wait(SECONDS)  # raises what any worker raises
    print(as_text(runtime.summary()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
