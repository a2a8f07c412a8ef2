"""System 1: the fast action model. Makes a chunk from the newest frame, state and condition."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from runtime.config.robot_yaml import RunConfig
from runtime.mailbox import ChunkMsg, ConditionMsg, FrameMsg, Mailboxes
from runtime.policy.graphs import PolicyGraphs
from v2a.spans import Histogram, SpanRing

SLOW_FACTOR = 1.5  # with a condition older than the soft age, a chunk takes this much longer


class System1:
    """Makes a chunk from the first frame of each `period_s`.

    The age of a condition is the time from its newest frame to the frame of the chunk. Above
    `soft_age_s` the chunk is stretched in time, so the robot moves slower. Above `hard_age_s` there
    is no new chunk, so the robot finishes the last one and rests. The same holds for a frame older
    than `camera.timeout_s` and for joint positions older than `safety.state_age_max_s`.
    """

    name = "system1"

    def __init__(
        self,
        graphs: PolicyGraphs,
        mailboxes: Mailboxes,
        config: RunConfig,
        ring: SpanRing,
        seed: int,
    ) -> None:
        manifest = graphs.bundle.manifest
        space = manifest.action_space
        self._graphs = graphs
        self._mailboxes = mailboxes
        self.ring = ring
        # A frame up to half a frame early counts, because the next one would be later than that.
        self._period_ns = round((config.system1.period_s - 0.5 / config.camera.fps) * 1e9)
        self._frame_age_max_ns = round(config.camera.timeout_s * 1e9)
        self._state_age_max_ns = round(config.safety.state_age_max_s * 1e9)
        self._soft_age_s = config.system2.soft_age_s
        self._hard_age_s = config.system2.hard_age_s
        self._trained_age_s = manifest.condition_age_max_s
        self._step_ns = round(space.step_s * 1e9)
        self._noise_scale = np.float32(config.system1.noise_scale)
        self._noise_shape = (1, space.chunk_length, len(space.joints))
        self._seed = seed
        self._seq = 0
        self.condition_age = Histogram()
        self.counts: Counter[str] = Counter()
        self._begin(0)

    def step(self, now_ns: int) -> ChunkMsg | None:
        """Return a chunk from the newest frame. Without one, return None and count the reason."""
        self._follow_epoch()
        frame, state = self._mailboxes.frame.get(), self._mailboxes.state.get()
        if frame is None or frame.t_capture_ns < self._due_ns:
            return None
        if now_ns - frame.t_capture_ns > self._frame_age_max_ns:
            self.counts["frame_too_old"] += 1
            return None
        if state is not None and now_ns - state.t_capture_ns > self._state_age_max_ns:
            self.counts["state_too_old"] += 1
            return None
        return self.compute(now_ns)

    def compute(self, now_ns: int) -> ChunkMsg | None:
        """Return a chunk from the newest frame and state, however old both are."""
        self._follow_epoch()
        frame = self._mailboxes.frame.get()
        if frame is None or frame.t_capture_ns < self._due_ns:
            return None
        condition = self.newest_condition(now_ns)
        if condition is None:
            self.counts["no_condition"] += 1
            return None
        age_ns = max(frame.t_capture_ns - condition.t_frame_ns, 0)
        self.condition_age.observe(age_ns)
        if age_ns > self._hard_age_s * 1e9:
            self.counts["hard_age"] += 1
            return None
        return self._chunk(frame, condition, age_ns)

    def skip(self, chunks: int) -> None:
        """Draw and drop the noise of the next `chunks` chunks of this epoch.

        A replay that lacks the inputs of some chunks keeps the noise of the later ones this way.
        """
        self._follow_epoch()
        for _ in range(chunks):
            self._draw()

    def _chunk(self, frame: FrameMsg, condition: ConditionMsg, age_ns: int) -> ChunkMsg | None:
        state = self._mailboxes.state.get()
        if state is None:
            self.counts["no_state"] += 1
            return None
        target_rad = self._graphs.chunk(
            frame,
            state.position_rad,
            state.command_rad,
            condition.tensors,
            min(age_ns / 1e9, self._trained_age_s),
            self._noise_scale * self._draw(),
            self.ring,
        )
        slow = age_ns > self._soft_age_s * 1e9
        self.counts["soft_age"] += slow
        self.counts["chunks"] += 1
        self._due_ns = frame.t_capture_ns + self._period_ns
        self._seq += 1
        return ChunkMsg(
            seq=self._seq,
            t_capture_ns=frame.t_capture_ns,
            t_publish_ns=0,
            parent_seq=frame.seq,
            epoch=frame.epoch,
            target_rad=target_rad,
            step_ns=round(self._step_ns * SLOW_FACTOR) if slow else self._step_ns,
            condition_age_ns=age_ns,
            condition_seq=condition.seq,
            state_seq=state.seq,
        )

    def newest_condition(self, now_ns: int) -> ConditionMsg | None:
        """Return the latest condition, or None before the first one of this epoch."""
        return self._mailboxes.condition.get()

    def _draw(self) -> npt.NDArray[np.float32]:
        return self._noise.standard_normal(self._noise_shape, dtype=np.float32)

    def _follow_epoch(self) -> None:
        if self._mailboxes.epoch.number != self._epoch:
            self._begin(self._mailboxes.epoch.number)

    def _begin(self, epoch: int) -> None:
        """Begin an episode. The same seed and epoch give the same noise."""
        self._epoch = epoch
        self._due_ns = 0  # a frame captured before this is too early
        self._noise: np.random.Generator = np.random.default_rng([self._seed, epoch])
