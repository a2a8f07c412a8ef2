"""`Profile`: the contents of profile.json. `v2a profile` writes it, the report draws it."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from runtime.host.run_delay import ThreadTimes
from v2a.measured import Measured, Number, Times, absent

SCHEMA_VERSION: Final = 1


class Histogram(Measured):
    """Counts of latencies between edges that grow by a constant factor; empty without samples."""

    edges_ms: tuple[Number, ...] = Field(description="edges of the bins, one more than bins")
    counts: tuple[int, ...] = Field(description="number of samples in each bin")


class BudgetedTimes(Times):
    """Times compared with a budget. The quantiles are values that occurred."""

    budget_ms: float | None = Field(
        description="limit for one event: that of the farthest quantile; null without a budget"
    )
    misses: int | None = Field(description="number of events over `budget_ms`; null without one")
    histogram: Histogram = Field(description="the distribution")


class StageTimes(BudgetedTimes):
    """The times of one stage, and how often it runs."""

    thread: str = Field(description="threads that ran the stage, separated by commas")
    period_ms: Number = Field(
        description="time between two starts: from robot.yaml for `tick`, `bus_*` and the graphs "
        "of System 1, else the measured median"
    )
    share: Number = Field(description="mean time divided by the period, 0 to 1")


class EngineTimes(Measured):
    """One engine, alone and during the run."""

    alone: Times | None = Field(
        description="time of `engine.run` while nothing else runs; null for a recording"
    )
    under_load: Times = Field(description="time of the stage during the run")
    overhead_ms: Number | None = Field(
        description="median of stage minus engine while nothing else runs: the time of our own "
        "code around the engine; null for a recording"
    )


class Ratio(Measured):
    """The ratio of two times. Values are null if there are too few samples."""

    ratio: Number = Field(description="ratio of the two times")
    ci95: tuple[Number, Number] = Field(description="lower and upper end of its 95 % interval")


class LayerShare(Measured):
    """One module of a graph. The blocks of a network count as one module."""

    module: str = Field(description="path of the module; `*` stands for the number of a block")
    share: Number = Field(description="part of the graph's time, 0 to 1")
    ms: Number = Field(description="time of all its layers in one run; timing slows layers down")


class BudgetRow(Measured):
    """One budget, and what was measured."""

    what: str = Field(description="name of the stage or age")
    quantile: str = Field(description="the quantile that is limited, for example `p99_ms`")
    limit_ms: Number = Field(description="the budget")
    found_ms: Number = Field(description="the measured value")
    ok: bool = Field(description="whether the budget holds")


class BudgetVerdict(Measured):
    """All budgets together."""

    ok: bool = Field(description="whether all budgets hold")
    verdict: str = Field(description="one sentence for people; it names the broken budgets")
    rows: tuple[BudgetRow, ...] = Field(description="one row for each budget that was tested")


class StallRow(Measured):
    """One stall: a stage, or a pause between two stages, far longer than usual."""

    thread: str = Field(description="name of the thread")
    stage: str = Field(description="the stage, or the first stage after the pause")
    after: str | None = Field(description="the last stage before the pause; null for a stage")
    at_s: Number = Field(description="time since the start of the run")
    ms: Number = Field(description="duration")
    usual_ms: Number = Field(description="median duration of the same stage or pause")


class StallSummary(Measured):
    """The stalls of the run."""

    verdict: str = Field(description="one sentence for people; it names the longest stall")
    n: int = Field(description="number of stalls")
    stalls: tuple[StallRow, ...] = Field(description="the longest 50, longest first")


class Machine(Measured):
    """The machine that the numbers are valid for. Keys that the machine does not tell are left
    out; a profile of a recording has only `versions` and `realtime`."""

    model: str | None = absent("name of the board, from the device tree; a PC has none")
    cpu: str | None = absent("name of the CPU")
    cores: int | None = absent("number of cores that the process may use")
    memory_gib: float | None = absent("memory of the machine")
    kernel: str | None = absent("release of the kernel")
    governor: str | None = absent("frequency governor of the first core")
    load_before: float | None = absent("load average of the last minute before the run")
    versions: dict[str, str] = Field(description="package -> version; also Python and the machine")
    realtime: dict[str, str] = Field(
        description="what the control process asked of the kernel -> what the kernel gave"
    )


class ProcessMemory(Measured):
    """Resident memory of one process."""

    resident_mib: Number = Field(description="resident memory at the end of the run")
    peak_mib: Number = Field(description="largest resident memory")


class MeanMax(Measured):
    """One sensor over the run."""

    mean: Number = Field(description="mean, in the unit of the table's key")
    max: Number = Field(description="largest value")


class Board(Measured):
    """The sensors of a Jetson over the run, read twice a second."""

    power_w: dict[str, MeanMax] = Field(description="rail -> power")
    temperature_c: dict[str, MeanMax] = Field(description="thermal zone -> temperature")
    clock_mhz: dict[str, MeanMax] = Field(description="core or GPU -> clock rate")
    power_mode: str | None = Field(description="nvpmodel's power mode; null if it is not known")
    throttled: tuple[str, ...] = Field(
        description="each moment when the board slowed down, and why"
    )


class Profile(Measured):
    """Where the time of a run went and how old its data was: profile.json.

    Only `v2a profile BUNDLE` measures `engine`, `options`, `noise_floor`, `layers`, `memory`,
    `device`, `others_cores`, `yardstick_ms` and `repeats`. In the profile of a recording they are
    empty or null.
    """

    schema_version: Literal[1] = Field(default=SCHEMA_VERSION, description="version of this schema")
    policy: str = Field(description="name of the policy in the bundle")
    engine: str | None = Field(default=None, description="engine back end, as in `--engine`")
    options: dict[str, int] = Field(default={}, description="option of the engine -> value")
    started_utc: str | None = absent("date and time of the start of the run in UTC")
    dry_run: bool | None = Field(
        default=None,
        description="whether the robot was a virtual one; null: an older v2a, which did not say",
    )
    damaged: str | None = absent("what of the recording is damaged, and so not in this profile")
    seconds: float = Field(description="length of the run")
    stages: dict[str, StageTimes] = Field(
        description="stage -> how long it took in its thread, waits for the GIL and a core included"
    )
    ages: dict[str, BudgetedTimes] = Field(
        description="`condition_age` of each chunk, `chunk_age` and `frame_to_motor` of each tick "
        "that moved the motors -> how old the data was"
    )
    gpu: dict[str, Times] = Field(
        description="stage -> time on the GPU by its own events, where the engine has them"
    )
    engines: dict[str, EngineTimes] = Field(description="graph -> time of its engine")
    noise_floor: dict[str, Ratio] = Field(
        default={},
        description="graph -> its engine's time divided by the same engine's time (A/A); a smaller "
        "difference is noise",
    )
    layers: dict[str, tuple[LayerShare, ...]] = Field(
        default={}, description="graph -> its modules, the most expensive first"
    )
    budgets: BudgetVerdict = Field(description="which budgets hold")
    tail: StallSummary = Field(description="the stalls")
    ticks: int = Field(description="number of control ticks")
    missed_ticks: dict[str, int] = Field(
        description="cause (`late`, `bus`, `no_chunk`) -> number of ticks without their work"
    )
    machine: Machine = Field(description="the machine and its software")
    threads: dict[str, ThreadTimes] = Field(description="thread -> its CPU time and waits")
    memory: dict[str, ProcessMemory] = Field(default={}, description="process -> its memory")
    device: Board | None = Field(default=None, description="a Jetson's sensors; null elsewhere")
    others_cores: float | None = Field(
        default=None, description="number of cores that other programs used, on average"
    )
    yardstick_ms: float | None = Field(
        default=None,
        description="median CPU time of a fixed computation during the run: the machine's speed",
    )
    repeats: dict[str, tuple[float, ...]] = Field(
        default={},
        description="stage or age -> typical value in each of three shorter runs, ms",
    )
    samples: dict[str, tuple[float, ...]] = Field(
        description="stage or age -> up to 2048 values in time order; not printed by `--json`, ms"
    )
