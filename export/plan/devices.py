"""The devices of `v2a plan`: memory, bandwidth and dense arithmetic rates, with sources.

NVIDIA's headline TOPS count the zeros that sparse weights skip, include the DLAs, and are FP4 on
Thor. The rates here are dense and of the GPU alone: SMs x clock x operations per SM and clock.
`tests/export/plan/test_plan.py` compares them with the data sheets. This project measured none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8", "fp8", "fp4"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A GPU architecture.

    `operations` gives the dense operations of one SM per clock by the precision of the factors; a
    multiply-add counts as two. The tensor cores do not support a precision that is missing.
    """

    compute_capability: str
    operations: Mapping[Precision, int]
    source: str


@dataclass(frozen=True, slots=True)
class PowerMode:
    """A power mode of `nvpmodel`: active SMs, highest GPU clock, DRAM bandwidth."""

    sms: int
    gpu_mhz: float
    bandwidth_gb_s: float


@dataclass(frozen=True, slots=True)
class Device:
    """One device. `cache_mib` is the L2 and any cache behind it. The fastest mode comes first."""

    name: str
    title: str
    architecture: Architecture
    memory_gib: float
    shared: bool  # whether CPU and GPU share the memory
    cache_mib: float
    software: str
    modes: Mapping[str, PowerMode]
    source: str

    @property
    def reserve_gb(self) -> float:
        """Memory that the policy cannot use, an assumption.

        On a Jetson with 8 GiB, 0.6 GiB are invisible to Linux and 1.6 GiB are in use without a
        desktop (user reports, JetPack 6.2.1); CUDA and TensorRT need more. On a desktop card it is
        the CUDA context and a display.
        """
        return 3.0 if self.shared else 1.0

    def operations_per_s(self, precision: Precision, mode: PowerMode) -> float:
        """Return the dense peak rate. Raises KeyError if the device lacks this precision."""
        return mode.sms * mode.gpu_mhz * 1e6 * self.architecture.operations[precision]


AMPERE_ORIN: Final = Architecture(
    "8.7",
    {"fp32": 256, "tf32": 1024, "fp16": 2048, "bf16": 2048, "int8": 4096},
    "AGX Orin data sheet DS-10662-001 v1.6, table 1-3: 170 sparse INT8 TOPS, 85 FP16 TFLOPS (half "
    "as many, so sparse as well) and 5.32 FP32 TFLOPS of 16 SMs at 1.3 GHz. bf16 and tf32 in the "
    "ratio of A100's white paper: no Jetson data sheet has them.",
)
BLACKWELL_THOR: Final = Architecture(
    "11.0",
    {"fp32": 256, "tf32": 4096, "fp16": 8192, "bf16": 8192, "int8": 16384, "fp8": 16384,
     "fp4": 32768},
    "Thor data sheet DS-11945-001 v1.5, table 1-1: 1035 dense FP4, 517 dense FP8 TFLOPS of T5000; "
    "NVIDIA's launch article: 1035 sparse INT8 TOPS, 517 sparse FP16 TFLOPS. bf16 and tf32 in the "
    "ratio of A100.",
)  # fmt: skip
ADA: Final = Architecture(
    "8.9",
    {"fp32": 256, "tf32": 256, "fp16": 1024, "bf16": 512, "int8": 2048, "fp8": 2048},
    "Ada GPU architecture white paper v2.1, appendix A, GeForce RTX 4090, dense: FP16 and FP8 with "
    "FP16 accumulation; with FP32 accumulation, as bf16 has it, half.",
)
BLACKWELL_RTX: Final = Architecture(
    "12.0",
    {"fp32": 256, "tf32": 256, "fp16": 1024, "bf16": 512, "int8": 2048, "fp8": 2048, "fp4": 4096},
    "RTX Blackwell white paper: 3352 sparse FP4 TOPS, 838 sparse FP16 TFLOPS of GeForce RTX 5090 "
    "(FP16 accumulation; bf16 half); tf32 as Ada.",
)
HOPPER: Final = Architecture(
    "9.0",
    {"fp32": 256, "tf32": 2048, "fp16": 4096, "bf16": 4096, "int8": 8192, "fp8": 8192},
    "H100 data sheet, SXM, halved where it says 'with sparsity'.",
)

_ORIN_SOFTWARE: Final = "JetPack 6.2 (TensorRT 10.3), 7.2 (10.16)"
_THOR_SOFTWARE: Final = "JetPack 7.0, 7.1 (TensorRT 10.13), 7.2 (10.16)"
_NVPMODEL: Final = "Jetson Linux nvpmodel_{}.conf; developer guide r36.5, power modes"
_THOR_SOURCE: Final = (
    "data sheet DS-11945-001 v1.5; modes: developer guide r38.4, which gives MAXN the 120 W clock "
    "where the data sheet has 1.57 GHz (taken: a bound); L2 as CUDA reports it, 16 MB system cache"
)

_TABLE: Final = (
    Device(
        "orin-nano-4", "Jetson Orin Nano 4GB", AMPERE_ORIN, 4, True, 8, _ORIN_SOFTWARE,
        {
            "MAXN_SUPER": PowerMode(4, 1020, 51.2),
            "25W": PowerMode(4, 1020, 51.2),
            "10W": PowerMode(4, 625, 34.1),
            "7W_AI": PowerMode(4, 408, 34.1),
        },
        "data sheet DS-11105-001; " + _NVPMODEL.format("p3767_0004(_super)"),
    ),
    Device(
        "orin-nano-8", "Jetson Orin Nano 8GB", AMPERE_ORIN, 8, True, 8, _ORIN_SOFTWARE,
        {
            "MAXN_SUPER": PowerMode(8, 1020, 102.4),
            "25W": PowerMode(8, 918, 102.4),
            "15W": PowerMode(8, 625, 68.3),
            "7W": PowerMode(4, 408, 68.3),
        },
        "data sheet DS-11105-001; " + _NVPMODEL.format("p3767_0003(_super)"),
    ),
    Device(
        "orin-nx-8", "Jetson Orin NX 8GB", AMPERE_ORIN, 8, True, 8, _ORIN_SOFTWARE,
        {
            "MAXN_SUPER": PowerMode(8, 1173, 102.4),
            "40W": PowerMode(8, 1173, 102.4),
            "MAXN": PowerMode(8, 765, 102.4),
            "20W": PowerMode(8, 408, 102.4),
            "15W": PowerMode(4, 612, 102.4),
            "10W": PowerMode(4, 612, 68.3),
        },
        "data sheet DS-10712-001 v1.5; " + _NVPMODEL.format("p3767_0001(_super)"),
    ),
    Device(
        "orin-nx-16", "Jetson Orin NX 16GB", AMPERE_ORIN, 16, True, 8, _ORIN_SOFTWARE,
        {
            "MAXN_SUPER": PowerMode(8, 1173, 102.4),
            "40W": PowerMode(8, 1173, 102.4),
            "MAXN": PowerMode(8, 918, 102.4),
            "25W": PowerMode(8, 408, 102.4),
            "15W": PowerMode(4, 612, 102.4),
            "10W": PowerMode(4, 612, 68.3),
        },
        "data sheet DS-10712-001 v1.5; " + _NVPMODEL.format("p3767_0000(_super)"),
    ),
    Device(
        "orin-agx-32", "Jetson AGX Orin 32GB", AMPERE_ORIN, 32, True, 8, _ORIN_SOFTWARE,
        {
            "MAXN": PowerMode(14, 939, 204.8),
            "40W": PowerMode(14, 816, 204.8),
            "30W": PowerMode(8, 612, 204.8),
            "15W": PowerMode(6, 408, 136.5),
        },
        "data sheet DS-10662-001 v1.6 (3.365 FP32 TFLOPS); " + _NVPMODEL.format("p3701_0004")
        + "; the MAXN_SUPER of JetPack 7.2 is not here: no clock was found",
    ),
    Device(
        "orin-agx-64", "Jetson AGX Orin 64GB", AMPERE_ORIN, 64, True, 8, _ORIN_SOFTWARE,
        {
            "MAXN": PowerMode(16, 1301, 204.8),
            "50W": PowerMode(16, 816, 204.8),
            "30W": PowerMode(8, 612, 204.8),
            "15W": PowerMode(6, 408, 136.5),
        },
        "data sheet DS-10662-001 v1.6; " + _NVPMODEL.format("p3701_0000"),
    ),
    Device(
        "thor-t4000", "Jetson T4000", BLACKWELL_THOR, 64, True, 48, _THOR_SOFTWARE,
        {"MAXN": PowerMode(12, 1530, 273), "70W": PowerMode(12, 1530, 273)},
        _THOR_SOURCE,
    ),
    Device(
        "thor-t5000", "Jetson T5000 (AGX Thor)", BLACKWELL_THOR, 128, True, 48, _THOR_SOFTWARE,
        {
            "MAXN": PowerMode(20, 1575, 273),
            "120W": PowerMode(20, 1386, 273),
            "90W": PowerMode(12, 1530, 273),
            "70W": PowerMode(12, 1530, 273),
        },
        _THOR_SOURCE,
    ),
    Device(
        "rtx-4090", "GeForce RTX 4090", ADA, 24, False, 72, "TensorRT 10 or 11",
        {"boost": PowerMode(128, 2520, 1008)},
        "Ada white paper v2.1, appendix A; cards boost beyond it, by about 6 %",
    ),
    Device(
        "rtx-5090", "GeForce RTX 5090", BLACKWELL_RTX, 32, False, 96, "TensorRT 10 or 11",
        {"boost": PowerMode(170, 2407, 1792)},
        "RTX Blackwell white paper; cards boost beyond it",
    ),
    Device(
        "h100", "H100 SXM 80GB", HOPPER, 79.6, False, 50, "TensorRT 10 or 11",
        {"boost": PowerMode(132, 1830, 3350)},
        "H100 data sheet: its tensor figures are those of 1830 MHz, its 67 FP32 TFLOPS of 1980",
    ),
)  # fmt: skip

DEVICES: Final[Mapping[str, Device]] = {device.name: device for device in _TABLE}
