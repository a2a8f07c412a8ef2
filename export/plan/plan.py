"""Computes whether a policy fits a device, and the highest rate of each system.

This is a roofline model. A graph needs at least the time of its FLOPs at the peak rate, and the
time of its compulsory bytes at the peak bandwidth. These bytes are weights, inputs and outputs
once. Every later solver step adds what exceeds the cache. Launches, intermediate tensors, unfused
softmax and the other system on the same GPU are left out. So times are lower bounds and rates are
upper bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from export.layers.costs import GraphCost, PolicyCost
from export.plan.devices import DEVICES, PRECISIONS, Device, PowerMode, Precision
from v2a.config import suggest
from v2a.errors import ConfigError
from v2a.names import Rate

GB = 1e9
GIB = 2**30

WEIGHT_BYTES: Mapping[Precision, float] = {
    "fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1,
    "fp4": 0.5 + 1 / 16,  # NVFP4: one 8-bit scale per 16 weights
}  # fmt: skip

TENSOR_BYTES: Mapping[Precision, int] = {
    "fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 2, "fp8": 2, "fp4": 2,
}  # fmt: skip
"""Bytes per element between layers and graphs. Only weights and products use 8 bits or fewer."""

SYSTEM2: tuple[Rate, ...] = ("system2",)
SYSTEM1: tuple[Rate, ...] = ("frame", "observe", "denoise")


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """The bounds of one run of a graph. A chunk needs `runs` of them."""

    name: str
    rate: Rate
    runs: int
    weight_bytes: float
    activation_bytes: float
    flops: int
    moved_bytes: float
    compute_s: float
    memory_s: float

    @property
    def time_s(self) -> float:
        return max(self.compute_s, self.memory_s)

    @property
    def limit(self) -> Literal["compute", "memory"]:
        return "compute" if self.compute_s >= self.memory_s else "memory"


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a policy on a device.

    `twice_bytes` are weights that two graphs hold, one per video stream of the same network.
    """

    policy: PolicyCost
    device: Device
    power_mode: str
    precision: Precision
    graphs: tuple[GraphPlan, ...]
    twice_bytes: float

    @property
    def mode(self) -> PowerMode:
        return self.device.modes[self.power_mode]

    @property
    def operations_per_s(self) -> float:
        return self.device.operations_per_s(self.precision, self.mode)

    @property
    def weight_bytes(self) -> float:
        return sum(graph.weight_bytes for graph in self.graphs)

    @property
    def activation_bytes(self) -> float:
        return sum(graph.activation_bytes for graph in self.graphs)

    @property
    def needed_bytes(self) -> float:
        return self.weight_bytes + self.activation_bytes + self.device.reserve_gb * GB

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.device.memory_gib * GIB

    @property
    def system2_s(self) -> float:
        """Shortest time of one condition."""
        return sum(graph.time_s for graph in self.of(SYSTEM2))

    @property
    def system1_s(self) -> float:
        """Shortest time of one chunk with one new frame."""
        return sum(graph.runs * graph.time_s for graph in self.of(SYSTEM1))

    @property
    def frame_to_chunk_s(self) -> float:
        """Shortest time from the newest frame to the chunk; older frames' K/V are cached."""
        return sum(graph.time_s for graph in self.of(SYSTEM1))

    def of(self, rates: tuple[Rate, ...]) -> list[GraphPlan]:
        """Return the graphs that run at these rates."""
        return [graph for graph in self.graphs if graph.rate in rates]

    def worst(self, rates: tuple[Rate, ...]) -> GraphPlan:
        """Return the graph of these rates with the largest share of the time."""
        return max(self.of(rates), key=lambda graph: graph.runs * graph.time_s)


def find_device(name: str) -> Device:
    """Return the device of this name. Raises ConfigError if it is unknown."""
    if name not in DEVICES:
        raise ConfigError(f"no device {name!r} is known; {suggest(name, list(DEVICES))}")
    return DEVICES[name]


def missing_precisions(device: Device) -> list[Precision]:
    """Return the precisions that the device's tensor cores lack."""
    return [name for name in PRECISIONS if name not in device.architecture.operations]


def plan(policy: PolicyCost, device: Device, power_mode: str | None, precision: Precision) -> Plan:
    """Compute the bounds in a power mode, by default the fastest.

    Raises ConfigError if the device lacks the mode or its tensor cores lack the precision.
    """
    power_mode = power_mode or next(iter(device.modes))
    if power_mode not in device.modes:
        near = suggest(power_mode, list(device.modes))
        raise ConfigError(f"{device.title} has no power mode {power_mode!r}; {near}")
    if precision in missing_precisions(device):
        raise ConfigError(_cannot(device, precision))
    mode = device.modes[power_mode]
    graphs = tuple(_graph(cost, device, mode, precision) for cost in policy.graphs)
    twice = _held_twice(policy.graphs) * WEIGHT_BYTES[precision]
    return Plan(policy, device, power_mode, precision, graphs, twice)


def _cannot(device: Device, precision: Precision) -> str:
    architecture = device.architecture
    able = [name for name, other in DEVICES.items() if precision in other.architecture.operations]
    return (
        f"{device.title} (SM {architecture.compute_capability}) cannot run {precision}; give "
        f"--precision {'|'.join(architecture.operations)}, or a --device that can: "
        f"{', '.join(able)}"
    )


def _graph(cost: GraphCost, device: Device, mode: PowerMode, precision: Precision) -> GraphPlan:
    tensor, cache = TENSOR_BYTES[precision], device.cache_mib * 2**20
    weights = cost.weights * WEIGHT_BYTES[precision]
    again = max(0.0, weights + cost.reread * tensor - cache)
    moved = weights + (cost.inputs + cost.outputs) * tensor + (cost.passes - 1) * again
    return GraphPlan(
        name=cost.name,
        rate=cost.rate,
        runs=cost.runs,
        weight_bytes=weights,
        activation_bytes=(cost.runs * cost.outputs + cost.widest) * tensor,
        flops=cost.flops,
        moved_bytes=moved,
        compute_s=cost.flops / device.operations_per_s(precision, mode),
        memory_s=moved / (mode.bandwidth_gb_s * GB),
    )


def _held_twice(graphs: Iterable[GraphCost]) -> int:
    """Count the weights of parts with the same keys and file as an earlier graph's."""
    seen, twice = set(), 0
    for graph in graphs:
        for file, part in graph.parts.items():
            twice += part.work.weights if (file, part.keys) in seen else 0
            seen.add((file, part.keys))
    return twice
