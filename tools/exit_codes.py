"""Runs commands on bad input and prints their exit codes, to compare two checkouts.

    python tools/exit_codes.py [--root CHECKOUT] > codes.txt

Nothing here needs a robot, a GPU or torch. A traceback is marked. A change that claims to change no
behaviour gives the same codes before and after; the texts may be better.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parents[1]
DRY = "run ok.yaml --bundle {bundle} --dry-run"
COMMANDS = (
    "wat", "run", "run --wat",
    *(f"run {name}.yaml --bundle {{bundle}}" for name in
      ("none", "typo", "cut", "empty", "range", "twice", "ok")),
    *(f"run ok.yaml --bundle {name}" for name in ("none", "changed", "bare")),
    f"{DRY} --camera file:none.mp4", f"{DRY} --camera wat:x",
    f"{DRY} --camera synthetic: --instruction fly", f"{DRY} --engine trt",
    f"{DRY} --seconds -1", f"{DRY} --web 0.0.0.0:1", "run ok.yaml --bundle {bundle} --web-remote",
    *(f"bundle check {name}" for name in ("none", "changed", "bare")), "bundle show file",
    *(f"record info {name}" for name in ("none", "recording", "file")),
    "record export none --to lerobot out", "replay none --bundle {bundle}", "replay recording",
    "profile", "profile none", "profile changed", "profile --run none", "profile --run recording",
    "export none.yaml -o out", "export cut.yaml -o out", "export {policy} -o out",
    "export {policy} --checkpoint file -o out", "check-golden none",
    "plan none.yaml --device orin-agx-64", "plan {policy} --device wat",
    "build none", "build {bundle}", "build {bundle} --sm 1 --engine rtx",
    *(f"motors {name} --port none" for name in ("scan", "doctor", "setup", "jog --id 1")),
    "motors doctor none.yaml", "motors monitor --port file", "motors calibrate none.yaml",
    "motors simulate --model wat",
    "demo --mode x", "demo --study --mode wat", "demo --bundle none", "demo --episodes 0",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=HERE)
    root = parser.parse_args().root.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(root, folder)
        for command in COMMANDS:
            print(f"{code_of(root, folder, command):<14}v2a {command}", flush=True)


def prepare(root: Path, folder: Path) -> None:
    """Put robot files, bundles and a recording with one fault each into `folder`."""
    text = (root / "demo/robot.yaml").read_text(encoding="utf-8")
    faults = {
        "ok": text,
        "typo": text.replace("instruction:", "instrucshun:"),
        "cut": "a: [1",
        "empty": "",
        "range": text.replace("id: 1", "id: 300", 1),
        "twice": text.replace("id: 2", "id: 1", 1),
    }
    for name, content in faults.items():
        (folder / f"{name}.yaml").write_text(content, encoding="utf-8")
    for name in ("changed", "bare"):
        shutil.copytree(root / "demo/bundle", folder / name)
    (folder / "changed/graphs/denoise.onnx").write_bytes(b"x")
    (folder / "bare/manifest.json").unlink()
    (folder / "file").write_text("x", encoding="utf-8")
    (folder / "recording").mkdir()
    (folder / "recording/run.mcap").write_bytes(b"\x89MCAP0\r\n")


def code_of(root: Path, folder: Path, command: str) -> str:
    """The exit code of `command` in `folder`, with a mark for a traceback."""
    places = {"bundle": root / "demo/bundle", "policy": root / "demo/policy.yaml"}
    done = subprocess.run(
        [sys.executable, "-m", "v2a", *command.format(**places).split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return f"{done.returncode}{' TRACEBACK' if 'Traceback' in done.stderr else ''}"


if __name__ == "__main__":
    main()
