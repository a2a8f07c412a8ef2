"""Trains the demo's policy: `python -m demo.train --out runs/train --seed 0`.

The training is seeded and runs on CPU cores or one GPU. To resume it after a stop, run the command
again. It has five stages:
  eyes    VAE and System 1's image encoder: reconstruct images, find puck and ring
  video   video DiT and its projectors: predict the next frames, read position, velocity and plan
  joint   System 1 on the teacher's labels; System 2 is trained, too, in every third step
  tuned   as joint, with episodes of the policy itself, labelled by the teacher
  firm    as tuned, with a second round of own episodes; its labels are a little early and end on
          the table, against the remaining bias. The policy is the mean of this and `tuned`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from demo import collect, expert, language, losses, plots
from demo.dataset import Episodes
from demo.learner import Learner
from demo.own import OwnEpisode
from export.own.config import PolicyConfig
from export.own.policy import Video2ActPolicy
from v2a.config import load_yaml

BASE_EPISODES: Final = 4400
OWN_EPISODES: Final = 400
CURVES: Final = "curves.jsonl"
POLICY_YAML: Final = Path(__file__).with_name("policy.yaml")


# The parts of the learner that a stage trains.
EYES: Final = ("video_vae", "vae_heads", "image_encoder", "image_heads")
VIDEO: Final = ("video_dit", "spatial_former", "motion_former", "video_heads")
JOINT: Final = (*VIDEO, "image_encoder", "image_heads", "observer", "core", "act_heads")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the training.

    `parts` are trained for `steps`. `own_rounds` is the number of rounds of the policy's own
    episodes, which make up `own_share` of all states in equal parts. `manner` says how the teacher
    lowers the ring.
    """

    name: str
    loss: Callable[[Learner, Episodes, np.random.Generator, int, int], dict[str, Tensor]]
    parts: tuple[str, ...]
    steps: int
    batch: int
    lr: float
    own_rounds: int = 0
    own_share: float = 0.0
    manner: expert.Manner = expert.USUAL


STAGES: Final = (
    Stage("eyes", losses.eyes, EYES, 4000, 16, 3e-3),
    Stage("video", losses.video, VIDEO, 2000, 32, 1.5e-3),
    Stage("joint", losses.joint, JOINT, 3200, 48, 1.2e-3),
    Stage("tuned", losses.joint, JOINT, 4000, 48, 8e-4, 1, 0.35),
    Stage("firm", losses.joint, JOINT, 3500, 48, 6e-4, 2, 0.5, expert.FIRM),
)


def learning_rate(step: int, stage: Stage) -> float:
    """Return the learning rate: warm-up over 5 % of the steps, then a cosine to a twentieth."""
    warm = stage.steps // 20
    if step < warm:
        return stage.lr * (step + 1) / warm
    along = (step - warm) / max(stage.steps - warm, 1)
    return stage.lr * (0.05 + 0.95 * 0.5 * (1 + float(np.cos(np.pi * along))))


class Run:
    """A training run in a folder.

    Episodes are in `base/` and `own<seed>-<round>/`, checkpoints and curves in `seed<seed>/`.
    """

    def __init__(self, out: Path, seed: int, device: str) -> None:
        self.out, self.seed, self.device = out, seed, device
        self.folder = out / f"seed{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        config = load_yaml(POLICY_YAML, PolicyConfig)
        lang = language.embed(language.INSTRUCTION, config.language.tokens, config.language.dim)
        self.learner = Learner(Video2ActPolicy(config), torch.from_numpy(lang)).to(device)

    def own(self, turn: int) -> Path:
        """Return the folder of the policy's own episodes of round `turn`, from 0."""
        return self.out / f"own{self.seed}-{turn}"

    def train(self, stage: Stage) -> None:
        """Run or resume one stage. A finished one is loaded."""
        parts = [self.learner.part(part) for part in stage.parts]
        parameters = [parameter for part in parts for parameter in part.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=stage.lr, betas=(0.9, 0.98), weight_decay=0.01)
        average = {name: value.clone() for name, value in self.learner.state_dict().items()}
        first = self._resume(stage, optimiser, average)
        if first < stage.steps:
            self._steps(stage, first, optimiser, average)
        self.learner.load_state_dict(average)

    def _episodes(self, stage: Stage) -> Episodes:
        folders = {self.out / "base": 1.0 - stage.own_share}
        for turn in range(stage.own_rounds):
            folders[self.own(turn)] = stage.own_share / stage.own_rounds
        return Episodes(folders, stage.manner)

    def _steps(
        self,
        stage: Stage,
        first: int,
        optimiser: torch.optim.Optimizer,
        average: dict[str, Tensor],
    ) -> None:
        """Run the steps of `stage` from `first` on and update the `average` of the weights."""
        episodes = self._episodes(stage)
        if first == 0 and stage is STAGES[0]:
            self.learner.set_action_scale(episodes)
            average["policy.action_scale"].copy_(self.learner.policy.action_scale)
        held_out = episodes.held_out()
        for step in range(first, stage.steps):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, stage)
            rng = np.random.default_rng([self.seed, STAGES.index(stage), step])
            torch.manual_seed(rng.integers(2**31))
            terms = stage.loss(self.learner, episodes, rng, stage.batch, step)
            optimiser.zero_grad(set_to_none=True)
            torch.stack(list(terms.values())).sum().backward()
            nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
            optimiser.step()
            _follow(average, self.learner, min(0.998, (step + 1) / (step + 10)))
            done = step + 1
            if done % 50 == 0 or done == stage.steps:
                self._log(stage, done, _values(terms))
            if done % 200 == 0 or done == stage.steps:
                self._log(stage, done, {"held_out": self._held_out(stage, held_out)})
                self._save(stage, done, optimiser, average)

    @torch.no_grad()
    def _held_out(self, stage: Stage, episodes: Episodes) -> dict[str, float]:
        """Return the stage's losses on one fixed batch of held-out episodes."""
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        return _values(stage.loss(self.learner, episodes, rng, 2 * stage.batch, 0))

    def _checkpoint(self, stage: Stage) -> Path:
        return self.folder / f"{stage.name}.pt"

    def _save(
        self, stage: Stage, step: int, optimiser: torch.optim.Optimizer, average: dict[str, Tensor]
    ) -> None:
        state = {
            "step": step,
            "learner": self.learner.state_dict(),
            "average": average,
            "optimiser": optimiser.state_dict(),
        }
        temporary = self._checkpoint(stage).with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self._checkpoint(stage))

    def _resume(
        self, stage: Stage, optimiser: torch.optim.Optimizer, average: dict[str, Tensor]
    ) -> int:
        if not self._checkpoint(stage).exists():
            return 0
        state = torch.load(self._checkpoint(stage), weights_only=True, map_location=self.device)
        self.learner.load_state_dict(state["learner"])
        optimiser.load_state_dict(state["optimiser"])
        average.update(state["average"])
        return int(state["step"])

    def average(self, stage: Stage) -> dict[str, Tensor]:
        """Return the final weights of a finished stage: key -> tensor in the learner's shapes."""
        state = torch.load(self._checkpoint(stage), weights_only=True, map_location=self.device)
        return dict(state["average"])

    def _log(self, stage: Stage, step: int, terms: dict[str, Any]) -> None:
        row: dict[str, Any] = {
            "stage": stage.name,
            "step": step,
            "monotonic_s": round(time.monotonic(), 1),
        }
        row |= terms
        with (self.folder / CURVES).open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)


def _values(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: round(float(value.detach()), 5) for name, value in terms.items()}


def _follow(average: dict[str, Tensor], learner: nn.Module, decay: float) -> None:
    """Update the exponential moving average of the weights, in place."""
    for name, value in learner.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1.0 - decay)
        else:
            average[name].copy_(value)


def _mean(learner: nn.Module, ends: list[dict[str, Tensor]]) -> None:
    """Load the mean of two stages' final weights.

    The first stage's ring stays above the table and the second's pushes into it. Either bias alone
    loses episodes.
    """
    before, after = ends
    learner.load_state_dict(
        {
            name: torch.lerp(before[name], value, 0.5) if value.is_floating_point() else value
            for name, value in after.items()
        }
    )


def stages(run: Run, workers: int) -> Iterator[str]:
    """Run the remaining work, and yield the name of each finished part."""
    if not (run.out / "base" / "valid.npy").exists():
        collect.collect(run.out / "base", BASE_EPISODES, workers, collect.disturbed_episode)
        yield "base episodes"
    for stage in STAGES:
        turn = stage.own_rounds - 1
        if turn >= 0 and not (run.own(turn) / "valid.npy").exists():
            first = turn * OWN_EPISODES
            own_episode = OwnEpisode(run.learner.policy, run.learner.lang, run.seed, first)
            collect.collect(run.own(turn), OWN_EPISODES, workers, own_episode)
            yield f"own episodes, round {turn}"
        run.train(stage)
        yield stage.name
    _mean(run.learner, [run.average(stage) for stage in STAGES[-2:]])
    instructions = {language.INSTRUCTION: run.learner.lang[0].cpu()}
    torch.save(
        {"policy": run.learner.policy.state_dict(), "instructions": instructions},
        run.folder / "policy.pt",
    )
    rows = [json.loads(line) for line in (run.folder / CURVES).read_text().splitlines()]
    (run.folder / "curves.png").write_bytes(plots.curves(rows))
    yield f"{run.folder}/policy.pt and curves.png"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/train"), help="folder for episodes and checkpoints"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for done in stages(Run(arguments.out, arguments.seed, arguments.device), arguments.threads):
        print(f"done: {done}", flush=True)


if __name__ == "__main__":
    main()
