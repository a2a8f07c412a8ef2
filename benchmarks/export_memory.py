"""Memory that `v2a export` takes for each weight of the video model, whose checkpoint is mapped.

    python benchmarks/export_memory.py [--json]

Exports the same policy with more and with fewer blocks, each in a process of its own, and samples
its anonymous memory: what it allocated, without the pages of files that the kernel may drop. The
slope over the weights is what a larger policy costs; where it is 0, size is a matter of disk only.
Linux only (`/proc`).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from export.release.config import ReleaseConfig
from export.release.layout import ADAPTORS, Layout
from export.release.policy import ReleasedPolicy

BLOCKS = (5, 12)
SIZES: dict[str, Any] = {
    "wan": {"dim": 1024, "in_dim": 16, "ffn_dim": 4096, "text_dim": 256, "freq_dim": 64,
            "num_heads": 8},
    "core": {"hidden_size": 32, "depth": 2, "num_heads": 2},
    "vae": {"dim": 4},
    "raw_stream": {"num_frames": 1, "video_size": [64, 64], "extraction": "sobel"},
    "motion_stream": {"num_frames": 5, "video_size": [64, 64], "extraction": "fft"},
    "action_chunk": 4,
    "state_dim": 16,
    "img_history": 1,
    "num_cameras": 1,
    "patches_per_image": 4,
    "img_token_dim": 8,
    "lang_token_dim": 8,
    "max_lang_len": 8,
    "ctrl_freq": 25,
    "denoise_steps": 1,
    "agilex_state_indices": [0, 1],
}  # fmt: skip
SAMPLE_S = 0.01


def write_policy(folder: Path, blocks: int) -> int:
    """A random policy's file and checkpoints; the number of its video model's weights."""
    config = SIZES | {"wan": SIZES["wan"] | {"num_layers": blocks}, "wan_layers_used": blocks}
    (folder / "policy.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    policy = ReleasedPolicy(ReleaseConfig.model_validate(config), Layout(ADAPTORS))
    save_file(policy.trained.state_dict(), folder / "policy.safetensors")
    save_file(policy.dit.state_dict(), folder / "wan_dit.safetensors")
    save_file(policy.vae.state_dict(), folder / "vae_encoder.safetensors")
    return sum(weight.numel() for weight in policy.dit.parameters())


def peak_bytes(folder: Path) -> int:
    """The most anonymous memory that the export ever had."""
    arguments = ["export", str(folder / "policy.json"), "-o", str(folder / "bundle"), "--no-check"]
    process = subprocess.Popen([sys.executable, "-m", "v2a", *arguments], stdout=sys.stderr)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _anonymous_bytes(process.pid))
        time.sleep(SAMPLE_S)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak


def _anonymous_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)  # none once the process has ended
    return 1024 * int(found.group(1)) if found else 0


def measure() -> dict[str, float]:
    weights, peaks = [], []
    for blocks in BLOCKS:
        with tempfile.TemporaryDirectory() as folder:
            weights.append(write_policy(Path(folder), blocks))
            peaks.append(peak_bytes(Path(folder)))
    return {
        "fewer_weights": weights[0],
        "more_weights": weights[1],
        "fewer_peak_bytes": peaks[0],
        "more_peak_bytes": peaks[1],
        "bytes_per_weight": (peaks[1] - peaks[0]) / (weights[1] - weights[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure()
    if arguments.json:
        print(json.dumps(found))
        return
    for size in ("fewer", "more"):
        weights, peak = found[f"{size}_weights"], found[f"{size}_peak_bytes"]
        print(f"{weights / 1e6:6.0f} million weights: {peak / 1e6:6.0f} MB at the peak")
    print(f"{found['bytes_per_weight']:.2f} bytes for each more weight")


if __name__ == "__main__":
    main()
