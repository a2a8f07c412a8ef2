"""Measures the time and memory of `v2a export` on released policies, each in its own process.

    python benchmarks/export_memory.py quarter [--json]   # the whole policy, a quarter as wide
    python benchmarks/export_memory.py blocks [--json]    # a video model as wide as released

`quarter` exports one policy with the parity check and without it. `blocks` exports two policies
without the check. They differ only in the number of the video model's blocks. The slope over their
weights is the cost of a larger policy: with a slope of 0, a larger policy only needs more disk.
`blocks` needs 6 GB of disk.

`resident` is the largest resident set of the process. It includes pages of the mapped checkpoints
that happened to be in memory. `anonymous` leaves these out, because the kernel may drop them at any
time: it is the memory that the export allocated. Linux only (`/proc`).
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rate_partition import QUARTER, QUICK, RELEASED, random_policy
from safetensors.torch import save_file

WAN: dict[str, Any] = yaml.safe_load(RELEASED.read_text(encoding="utf-8"))["wan"]

QUARTER_POLICY: dict[str, Any] = {
    **QUARTER,
    "wan": {**WAN, "dim": WAN["dim"] // 4, "ffn_dim": WAN["ffn_dim"] // 4,
            "num_heads": WAN["num_heads"] // 4},
    "wan_layers_used": 20,
    "vae": {"dim": 40},
}  # fmt: skip
CHECKED, UNCHECKED = (), ("--no-check",)
SAMPLE_S = 0.02


def blocks(count: int) -> dict[str, Any]:
    """Released widths of the video model, of which that many blocks are run; a tiny core."""
    return {**QUICK, "wan": WAN, "wan_layers_used": count}


ARMS: dict[str, tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...]] = {
    "quarter": (
        ("parity checked", QUARTER_POLICY, CHECKED),
        ("--no-check", QUARTER_POLICY, UNCHECKED),
    ),
    "blocks": (("1 block", blocks(1), UNCHECKED), ("4 blocks", blocks(4), UNCHECKED)),
}


@dataclass(frozen=True, slots=True)
class Measured:
    arm: str
    weights: int
    checkpoint_bytes: int
    seconds: float
    cpu_seconds: float
    resident_bytes: int
    anonymous_bytes: int

    @property
    def resident_bytes_per_weight(self) -> float:
        return self.resident_bytes / self.weights


def write_policy(folder: Path, sizes: Mapping[str, Any]) -> tuple[int, int]:
    """A random policy's file and checkpoints; how many weights, in how many bytes."""
    policy = random_policy(sizes)
    (folder / "policy.json").write_text(policy.config.model_dump_json())
    save_file(policy.trained.state_dict(), folder / "policy.safetensors")
    save_file(policy.dit.state_dict(), folder / "wan_dit.safetensors")
    save_file(policy.vae.state_dict(), folder / "vae_encoder.safetensors")
    size_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return sum(weight.numel() for weight in policy.parameters()), size_bytes


def measure(arm: str, sizes: Mapping[str, Any], options: tuple[str, ...]) -> Measured:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights, checkpoint_bytes = write_policy(folder, sizes)
        command = ["export", str(folder / "policy.json"), "-o", str(folder / "bundle"), *options]
        start_s, before = time.monotonic(), _cpu_seconds()
        process = subprocess.Popen([sys.executable, "-m", "v2a", *command], stdout=sys.stderr)
        resident = anonymous = 0
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            resident = max(resident, _bytes(status, "VmHWM"))
            anonymous = max(anonymous, _bytes(status, "RssAnon"))
            time.sleep(SAMPLE_S)
        if process.returncode:
            raise SystemExit(process.returncode)
        seconds, cpu_seconds = time.monotonic() - start_s, _cpu_seconds() - before
    return Measured(arm, weights, checkpoint_bytes, seconds, cpu_seconds, resident, anonymous)


def _cpu_seconds() -> float:
    """Of all ended children, in user and system mode."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _bytes(status: str, field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", status)  # none once the process has ended
    return 1024 * int(found.group(1)) if found else 0


def slope(fewer: Measured, more: Measured) -> float:
    """Anonymous bytes for each more weight."""
    return (more.anonymous_bytes - fewer.anonymous_bytes) / (more.weights - fewer.weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", choices=ARMS, nargs="?", default="quarter")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = [measure(*arm) for arm in ARMS[arguments.sizes]]
    report: dict[str, Any] = {
        "arms": [
            {**asdict(one), "resident_bytes_per_weight": one.resident_bytes_per_weight}
            for one in found
        ]
    }
    if arguments.sizes == "blocks":
        report["anonymous_bytes_per_more_weight"] = slope(*found)
    if arguments.json:
        print(json.dumps(report))
        return
    for one in found:
        print(
            f"{one.arm:<15}{one.weights / 1e6:6.0f} million weights {one.seconds:6.0f} s "
            f"({one.cpu_seconds:.0f} s of one CPU)  "
            f"resident {one.resident_bytes / 1e6:6.0f} MB ({one.resident_bytes_per_weight:.1f} "
            f"bytes a weight)  anonymous {one.anonymous_bytes / 1e6:6.0f} MB"
        )
    if arguments.sizes == "blocks":
        print(f"{slope(*found):.2f} anonymous bytes for each more weight")


if __name__ == "__main__":
    main()
