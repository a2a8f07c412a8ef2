"""Makes an example bundle for a robot, to try everything before there is a policy.

Its weights are random: it has learned nothing. Each joint goes slowly to a point within 3 degrees
of the middle of its range. The picture, the condition and the instruction choose the point, so it
moves as the picture changes. With a still picture the joint stays there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.config.robot_yaml import RunConfig
from v2a import __version__
from v2a.bundle import ActionSpace, CameraSpec, FileRef, GraphSpec, JointSpec, Manifest, seal
from v2a.files import new_folder
from v2a.onnx_writer import Node, onnx_bytes

SWAY_RAD = 0.05  # 3 degrees to either side, or less where the range is small
SWAY_SHARE = 0.1  # of half a joint's range
SPEED_RAD_S = 0.1  # 6 degrees a second, or less where the joint is slower
SPEED_SHARE = 0.5  # of a joint's velocity limit
STEP_S = 0.05
CHUNK = 32  # steps: 1.6 s
HISTORY = 4  # pictures of the clip
WIDTH = 16  # of every token
INSTRUCTION_TOKENS = 4

NAME = "example-random-weights"
DESCRIPTION = (
    "example with random weights, not a trained policy: moves each joint slowly to within "
    "3 degrees of the middle of its range"
)

Weights = dict[str, npt.NDArray[Any]]


def write_example(config: RunConfig, folder: Path) -> Manifest:
    """Write a sealed bundle for the robot, camera and instruction of `config`.

    Raises ConfigError if `folder` exists or cannot be written.
    """
    manifest = _manifest(config)
    draws = np.random.default_rng(0)
    with new_folder(folder, "write the bundle") as beside:
        (beside / "graphs").mkdir()
        (beside / "embeddings").mkdir()
        for graph in manifest.graphs:
            (beside / graph.file).write_bytes(_graph(graph, manifest, draws))
        tokens = draws.standard_normal((1, INSTRUCTION_TOKENS, WIDTH)).astype(np.float32)
        np.save(beside / manifest.instructions[config.instruction].file, tokens)
        seal(beside, manifest)
    return manifest


def _manifest(config: RunConfig) -> Manifest:
    camera = config.camera
    return Manifest(
        policy=NAME,
        description=DESCRIPTION,
        graphs=list(_graphs(camera.height, camera.width, len(config.robot.joints))),
        action_space=ActionSpace(
            joints=[
                JointSpec(
                    name=joint.name,
                    lower=joint.lower_rad,
                    upper=joint.upper_rad,
                    velocity_limit=joint.velocity_limit_rad_s,
                )
                for joint in config.robot.joints
            ],
            chunk_length=CHUNK,
            step_s=STEP_S,
        ),
        cameras=[
            CameraSpec(
                name="camera",
                width=camera.width,
                height=camera.height,
                history=HISTORY,
                interval_s=max(1.0 / camera.fps, 0.1),
            )
        ],
        instructions={config.instruction: FileRef(file="embeddings/0.npy")},
        condition_age_max_s=config.system2.hard_age_s,
        provenance={"made_by": f"v2a bundle example, v2a {__version__}", "weights": "random"},
    )


def _graphs(height: int, width: int, joints: int) -> Iterator[GraphSpec]:
    """Yield the graphs that `runtime.policy.graphs` runs."""
    token, clip = [1, 1, WIDTH], [1, HISTORY, height, width, 3]
    text = [1, INSTRUCTION_TOKENS, WIDTH]
    # name, rate, inputs, outputs; floats except for pictures
    rows: tuple[tuple[str, str, dict[str, list[int]], dict[str, list[int]]], ...] = (
        ("instruction", "instruction", {"lang_tokens": text}, {"lang_kv": token}),
        ("frame_encode", "frame", {"image": [1, height, width, 3]}, {"image_tokens": token}),
        ("vae_spatial", "system2", {"frames": [1, 1, height, width, 3]},
         {"latent_spatial": [1, 1, 3]}),
        ("vae_motion", "system2", {"frames": clip}, {"latent_motion": [1, HISTORY, 3]}),
        ("vdm_spatial", "system2", {"latent_spatial": [1, 1, 3]}, {"features_spatial": token}),
        ("vdm_motion", "system2", {"latent_motion": [1, HISTORY, 3]},
         {"features_motion": [1, HISTORY, WIDTH]}),
        ("condition", "system2",
         {"features_spatial": token, "features_motion": [1, HISTORY, WIDTH]}, {"video_kv": token}),
        ("observe", "observe", {"image_tokens": token}, {"image_kv": token}),
        ("denoise", "denoise",
         {"lang_kv": token, "video_kv": token, "image_kv": token, "command_rad": [1, joints]},
         {"chunk_rad": [1, CHUNK, joints]}),
    )  # fmt: skip
    for name, rate, inputs, outputs in rows:
        yield GraphSpec.model_validate(
            {"name": name, "rate": rate, "file": f"graphs/{name}.onnx",
             "inputs": [_tensor(*item) for item in inputs.items()],
             "outputs": [_tensor(*item) for item in outputs.items()]}
        )  # fmt: skip


def _tensor(name: str, shape: list[int]) -> dict[str, Any]:
    picture = name in ("image", "frames")
    unit = "rad" if name.endswith("_rad") else None
    meaning = "RGB, oldest first" if picture else f"{name} of the example"
    dtype = "uint8" if picture else "float32"
    return {"name": name, "dtype": dtype, "shape": shape, "meaning": meaning, "unit": unit}


def _graph(graph: GraphSpec, manifest: Manifest, draws: np.random.Generator) -> bytes:
    if graph.name == "denoise":
        return onnx_bytes(graph, _DENOISE, _denoise_weights(manifest, draws))
    inputs, (output,) = [spec.name for spec in graph.inputs], graph.outputs
    colours = graph.inputs[0].dtype == "uint8"
    nodes, weights = [], {}
    mixed = inputs[0]
    if colours:  # the mean colour of each picture
        axes = [len(graph.inputs[0].shape) - 3, len(graph.inputs[0].shape) - 2]
        keep = int(graph.name == "frame_encode")  # [1, 1, 1, 3] or [1, frames, 3]
        nodes = [
            Node("Cast", [mixed], "float", {"to": 1}),
            Node("ReduceMean", ["float"], "mean", {"axes": axes, "keepdims": keep}),
            Node("Mul", ["mean", "scale"], "colour"),
        ]
        weights["scale"] = np.float32(1 / 255).reshape(1)
        mixed = "colour"
        if keep:
            nodes.append(Node("Squeeze", [mixed, "first"], "flat"))
            weights["first"] = np.array([1], np.int64)
            mixed = "flat"
    if graph.name == "condition":
        nodes = [
            Node("ReduceMean", [inputs[1]], "motion", {"axes": [1], "keepdims": 1}),
            Node("Add", [inputs[0], "motion"], "both"),
        ]
        mixed = "both"
    if graph.name == "instruction":
        nodes = [Node("ReduceMean", [mixed], "pooled", {"axes": [1], "keepdims": 1})]
        mixed = "pooled"
    width = 3 if graph.inputs[0].shape[-1] == 3 else WIDTH
    weights["w"] = draws.standard_normal((width, output.shape[-1])).astype(np.float32)
    weights["w"] /= np.float32(np.sqrt(width))
    nodes += [Node("MatMul", [mixed, "w"], "product"), Node("Tanh", ["product"], output.name)]
    return onnx_bytes(graph, nodes, weights)


# goal = middle + sway * sin(a random sum of all that the policy knows), in [1, 1, joints]
# chunk = command + (goal - command, at most the reach of each step)
_DENOISE = (
    Node("MatMul", ["lang_kv", "w_lang"], "from_lang"),
    Node("MatMul", ["video_kv", "w_video"], "from_video"),
    Node("MatMul", ["image_kv", "w_image"], "from_image"),
    Node("Add", ["from_lang", "from_video"], "two"),
    Node("Add", ["two", "from_image"], "all"),
    Node("Sin", ["all"], "wave"),
    Node("Mul", ["wave", "sway"], "offset"),
    Node("Add", ["offset", "middle"], "goal"),
    Node("Unsqueeze", ["command_rad", "axis"], "command"),
    Node("Sub", ["goal", "command"], "way"),
    Node("Min", ["way", "reach"], "not_above"),
    Node("Neg", ["reach"], "reach_back"),
    Node("Max", ["not_above", "reach_back"], "taken"),
    Node("Add", ["command", "taken"], "chunk_rad"),
)


def _denoise_weights(manifest: Manifest, draws: np.random.Generator) -> Weights:
    joints = manifest.action_space.joints
    lower, upper = (np.array([getattr(j, side) for j in joints]) for side in ("lower", "upper"))
    fastest = np.array([joint.velocity_limit for joint in joints])
    sway = np.minimum(SWAY_RAD, SWAY_SHARE * (upper - lower) / 2)
    speed = np.minimum(SPEED_RAD_S, SPEED_SHARE * fastest)
    steps = STEP_S * np.arange(1, CHUNK + 1)
    parts: Weights = {
        name: 2 * draws.standard_normal((WIDTH, len(joints)))
        for name in ("w_lang", "w_video", "w_image")
    }
    parts |= {"middle": (lower + upper) / 2, "sway": sway}
    parts["reach"] = steps[None, :, None] * speed
    weights: Weights = {name: array.astype(np.float32) for name, array in parts.items()}
    return weights | {"axis": np.array([1], np.int64)}
