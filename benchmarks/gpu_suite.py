"""Runs everything that needs an NVIDIA GPU. The command can be interrupted and started again.

    PYTHONPATH=. python benchmarks/gpu_suite.py --out runs/gpu            # on a GPU: 8 minutes
    PYTHONPATH=. python benchmarks/gpu_suite.py --rehearse --out runs/toy # every part on the CPU

Each part runs in a process of its own, with a time limit, and writes `PART.json` into the folder. A
part whose file exists does not run again. `PART.partial.json` has the results of a part that was
cut off. A rehearsal uses toy sizes and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Part:
    """A row of the suite: a function of `gpu.MODULE`, its options and its limit on a GPU."""

    module: str
    function: str
    limit_s: float
    options: dict[str, Any]
    watch_every_s: float = 1.0  # readings of the card; 0 where they would disturb
    asked_for: bool = False  # runs only when `--parts` names it


PARTS = {
    "rates": Part("part_rates", "rates", 60, {}),
    "seam": Part("part_seam", "seam", 90, {"file": "test_cuda.py"}),
    "contention": Part("part_contention", "contention", 240, {}, 0),
    "green": Part("part_contention", "contention", 120, {"main": False, "green_sms": (32, 64)}, 0),
    "chunk": Part("part_chunk", "chunk", 90, {}),
    "condition": Part("part_chunk", "condition", 90, {}),
    "kernels": Part("part_kernels", "kernels", 60, {}),
    "chunk_compiled": Part("part_chunk", "chunk", 150, {"compiled": True}),
    "contention_compiled": Part(
        "part_contention", "contention", 240, {"fused": True, "green_sms": (64,)}, 0, True
    ),
    "kernels_compiled": Part("part_kernels", "kernels", 90, {"fused": True}, asked_for=True),
    "engines": Part("part_seam", "seam", 150, {"file": "test_engines.py"}),
    "contention_vae": Part("part_contention", "contention", 260, {"with_vae": True}, 0, True),
}
REHEARSAL_LIMIT_S = 120.0


def run_part(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One part in this process."""
    part, start_s = PARTS[name], time.monotonic()
    from gpu.device import Device
    from gpu.machine import Context, extremes, facts, watched

    rehearse = arguments.rehearse
    context = Context(
        device=Device("cpu" if rehearse else "cuda"),
        rehearse=rehearse,
        out=arguments.out,
        name=name,
        limit_s=_limit_s(name, arguments),
        start_s=start_s,
        rounds=1 if rehearse else arguments.rounds,
        segment_s=0.3 if rehearse else arguments.segment_s,
    )
    function = getattr(import_module(f"gpu.{part.module}"), part.function)
    with watched(part.watch_every_s) as readings:
        found = function(context, **part.options)
    return {
        "found": found, "ok": bool(found.get("ok", True)), "rehearsal": rehearse,
        "machine": facts(context.device), "card": extremes(readings),
        "seconds": round(time.monotonic() - start_s, 1),
    }  # fmt: skip


def _limit_s(name: str, arguments: argparse.Namespace) -> float:
    return REHEARSAL_LIMIT_S if arguments.rehearse else PARTS[name].limit_s


def in_a_process(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the part beside this process, stop it at its limit, and read what it left."""
    start_s = time.monotonic()
    command = [
        sys.executable, __file__, "--part", name, "--out", str(arguments.out),
        "--rounds", str(arguments.rounds), "--segment-s", str(arguments.segment_s),
    ]  # fmt: skip
    child = subprocess.Popen(
        command + ["--rehearse"] * arguments.rehearse,
        env={**os.environ, "PYTHONPATH": _path()},
        stdout=sys.stderr,
        start_new_session=True,
    )
    try:
        rc = child.wait(_limit_s(name, arguments) + 15)
        fault = f"exit status {rc}" if rc else ""
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)  # with the processes that it started
        child.wait()
        fault = "cut off at its time limit"
    file = arguments.out / f"{name}.json"
    if file.is_file():
        return dict(json.loads(file.read_text(encoding="utf-8")))
    return {"ok": False, "fault": fault, "seconds": round(time.monotonic() - start_s, 1)}


def _path() -> str:
    return os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))


def table(results: dict[str, dict[str, Any]]) -> str:
    """A line a part, and the figures of the contention."""
    lines = [f"{'part':<20}{'':<8}{'seconds':>8}"]
    for name, result in results.items():
        word = "ok" if result["ok"] else "FAILED"
        lines.append(f"{name:<20}{word:<8}{result['seconds']:8.1f}  {result.get('fault', '')}")
    for name, result in results.items():
        found = result.get("found", {})
        if "arms" in found:
            lines += ["", f"{name:<24}{'p50':>9}{'p99':>9}{'p99.9':>9}{'ratio':>8}{'share':>8}"]
            lines += [_arm(arm, row) for arm, row in found["arms"].items()]
            lines += [f"{arm}: {fault}" for arm, fault in found["failed"].items()]
    return "\n".join(lines)


def _arm(name: str, row: dict[str, Any]) -> str:
    cells = [f"{row[k]:9.2f}" if k in row else f"{'':>9}" for k in ("p50_ms", "p99_ms", "p999_ms")]
    cells += [f"{row[k]:8.3f}" if row.get(k) is not None else f"{'':>8}"
              for k in ("p99_ratio", "system2_share")]  # fmt: skip
    return f"{name:<24}" + "".join(cells)


def suite(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every part that has no result yet, in the order of the table."""
    results = {}
    names = arguments.parts or [name for name, part in PARTS.items() if not part.asked_for]
    for name in names:
        file = arguments.out / f"{name}.json"
        if file.is_file():
            results[name] = json.loads(file.read_text(encoding="utf-8"))
            print(f"{name}: kept from before", file=sys.stderr)
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = in_a_process(name, arguments)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choose = partial(parser.add_argument, choices=list(PARTS))
    choose("--parts", nargs="+", help="only these, in this order")
    choose("--part", help=argparse.SUPPRESS)  # in this process
    parser.add_argument("--out", type=Path, help="folder of the results; default: a temporary one")
    parser.add_argument("--rehearse", action="store_true", help="toy sizes on the CPU")
    parser.add_argument("--rounds", type=int, default=3, help="of the contention (3)")
    parser.add_argument("--segment-s", type=float, default=6.0, help="of an arm in a round (6)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        arguments.out = (arguments.out or Path(scratch)).resolve()
        arguments.out.mkdir(parents=True, exist_ok=True)
        if arguments.part:
            found = run_part(arguments.part, arguments)
            text = json.dumps(found, indent=1, default=str)
            (arguments.out / f"{arguments.part}.json").write_text(text)
            return 0
        results = suite(arguments)
    print(json.dumps({"parts": results}) if arguments.json else table(results))
    return 0 if all(result["ok"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
