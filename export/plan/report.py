"""Formats a plan as a table and as JSON."""

from __future__ import annotations

import json
from typing import Any

from export.plan.plan import GB, GIB, SYSTEM1, SYSTEM2, GraphPlan, Plan, missing_precisions

BOUND = (
    "a bound, not a promise: peak rates, every tensor moved once, nothing else on the GPU; "
    "an engine reaches a part of it"
)
LAUNCHES = "so small a policy is limited by kernel launches, which are not counted"

_PREFIXES = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1), ("m", 1e-3))
_LAUNCHES_S = 1e-3  # below this time per chunk, launches take longer than the arithmetic
_ROW = "{:<18}{:<12}{:>7}{:>8}{:>8}{:>8}{:>9}  {}"  # fits 80 columns
_HEADINGS = ("graph", "runs when", "weights", "tensors", "FLOP", "moved", "at least", "limit")


def as_text(plan: Plan) -> str:
    """Format the plan as a table."""
    device, policy = plan.device, plan.policy
    shared = " shared with the CPU" if device.shared else ""
    able, lacks = device.architecture.operations, missing_precisions(device)
    naive = f"{_si(policy.naive_core_flops, 'FLOP')} with all K/V made in every solver step"
    return "\n".join(
        [
            f"{policy.name} on {device.title}, {plan.power_mode}: {plan.precision} "
            f"{_si(plan.operations_per_s, 'FLOP/s')} dense, {plan.mode.bandwidth_gb_s:.0f} GB/s, "
            f"{device.memory_gib:g} GiB{shared}",
            "",
            _ROW.format(*_HEADINGS),
            *(_row(graph) for graph in plan.graphs),
            "",
            f"memory     {_memory(plan)}",
            f"System 2   {_rate(plan.system2_s, plan.worst(SYSTEM2))}",
            f"System 1   {_rate(plan.system1_s, plan.worst(SYSTEM1))}",
            f"both       at most {_hz(plan.system1_s + plan.system2_s)} each, taking turns",
            f"latency    at least {_si(plan.frame_to_chunk_s, 's')} from the newest frame to the "
            f"chunk; a chunk lasts {policy.chunk_s:g} s",
            f"core       {_si(policy.core_flops, 'FLOP')} a chunk; {naive}",
            f"precision  {' '.join(able)}{'; not ' if lacks else ''}{' '.join(lacks)}",
            f"software   {device.software}",
            *(f"note       {note}" for note in _notes(plan)),
        ]
    )


def _row(graph: GraphPlan) -> str:
    return _ROW.format(
        graph.name + (f" x {graph.runs}" if graph.runs > 1 else ""),
        graph.rate,
        _si(graph.weight_bytes, "B"),
        _si(graph.activation_bytes, "B"),
        _si(graph.flops, "").rstrip(),
        _si(graph.moved_bytes, "B"),
        _si(graph.time_s, "s"),
        graph.limit,
    )


def _memory(plan: Plan) -> str:
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    return (
        f"{verdict}: {_si(plan.needed_bytes, 'B')} of {_si(plan.device.memory_gib * GIB, 'B')}: "
        f"weights {_si(plan.weight_bytes, 'B')} ({_si(plan.twice_bytes, 'B')} of them twice, once "
        f"a stream), activations {_si(plan.activation_bytes, 'B')}, reserve "
        f"{_si(plan.device.reserve_gb * GB, 'B')}"
    )


def _rate(time_s: float, worst: GraphPlan) -> str:
    share = worst.runs * worst.time_s / time_s
    return f"at most {_hz(time_s)} alone; {share:.0%} of it {worst.name}, by {worst.limit}"


def _notes(plan: Plan) -> list[str]:
    launches = [LAUNCHES] if plan.system1_s < _LAUNCHES_S else []
    return [*plan.policy.notes, *launches, BOUND]


def _hz(time_s: float) -> str:
    return f"{1 / time_s:,.0f} Hz" if time_s < 0.01 else f"{1 / time_s:.3g} Hz"


def _si(value: float, unit: str) -> str:
    """Format with three digits and a prefix: 264 MB, 10.7 TFLOP, 3.58 us."""
    for prefix, size in _PREFIXES:
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value / 1e-6:.3g} u{unit}"


def as_json_text(plan: Plan) -> str:
    """Format the plan as JSON in SI units: bytes, FLOPs, seconds, hertz."""
    device = plan.device
    return json.dumps(
        {
            "policy": plan.policy.name,
            "device": {
                "name": device.name,
                "title": device.title,
                "power_mode": plan.power_mode,
                "compute_capability": device.architecture.compute_capability,
                "precisions": list(device.architecture.operations),
                "operations_per_s": plan.operations_per_s,
                "bandwidth_bytes_per_s": plan.mode.bandwidth_gb_s * GB,
                "memory_bytes": device.memory_gib * GIB,
                "memory_shared_with_cpu": device.shared,
                "software": device.software,
                "sources": [device.architecture.source, device.source],
            },
            "precision": plan.precision,
            "graphs": [_graph(graph) for graph in plan.graphs],
            "memory": {
                "fits": plan.fits,
                "needed_bytes": plan.needed_bytes,
                "weight_bytes": plan.weight_bytes,
                "weight_bytes_held_twice": plan.twice_bytes,
                "activation_bytes": plan.activation_bytes,
                "reserve_bytes": device.reserve_gb * GB,
            },
            "system2_hz_at_most": 1 / plan.system2_s,
            "system2_limit": _limit(plan.worst(SYSTEM2)),
            "system1_hz_at_most": 1 / plan.system1_s,
            "system1_limit": _limit(plan.worst(SYSTEM1)),
            "both_hz_at_most": 1 / (plan.system1_s + plan.system2_s),
            "frame_to_chunk_s_at_least": plan.frame_to_chunk_s,
            "chunk_s": plan.policy.chunk_s,
            "core_flops": plan.policy.core_flops,
            "naive_core_flops": plan.policy.naive_core_flops,
            "notes": _notes(plan),
        },
        indent=1,
    )


def _graph(graph: GraphPlan) -> dict[str, Any]:
    return {
        "name": graph.name,
        "rate": graph.rate,
        "runs_per_chunk": graph.runs,
        "weight_bytes": graph.weight_bytes,
        "activation_bytes": graph.activation_bytes,
        "flops": graph.flops,
        "moved_bytes": graph.moved_bytes,
        "compute_s": graph.compute_s,
        "memory_s": graph.memory_s,
        "lower_bound_s": graph.time_s,
        "limit": graph.limit,
    }


def _limit(graph: GraphPlan) -> dict[str, str]:
    return {"graph": graph.name, "by": graph.limit}
