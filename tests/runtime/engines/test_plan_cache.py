"""The plan cache: found again by all that a plan depends on, and nothing half-written is found."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.cuda import Gpu
from runtime.engines.plan_cache import (
    Machine,
    PlanCache,
    PlanCheck,
    PlanKey,
    Recipe,
    graph_sha256,
    machine_of,
)
from tests.runtime.engines.plan_checks import good
from v2a.bundle import GraphSpec
from v2a.errors import EngineError

MACHINE = Machine("trt", "10.3.0", 12060, "R36.4", "Orin", 87, "pmode:0000")
KEY = PlanKey("a" * 64, "fp32", MACHINE, Recipe(3, 2048))


def graph(**changed: Any) -> GraphSpec:
    fields = {"name": "observe", "rate": "observe", "file": "o.onnx", "sha256": "a" * 64}
    return GraphSpec.model_validate({**fields, "inputs": [], "outputs": [], **changed})


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


def files(cache: PlanCache) -> list[str]:
    return sorted(file.suffix for file in cache.folder.iterdir())


def test_what_was_stored_is_found_with_its_note(cache: PlanCache) -> None:
    assert cache.find(KEY) is None
    note = cache.store(KEY, memoryview(b"plan"), {}, good)
    assert note.check.gpu_ms == note.bytes == 4
    assert cache.find(KEY) == note
    assert cache.newest(graph(), MACHINE) == b"plan"
    assert files(cache) == [".json", ".plan"]


def test_the_folder_is_the_users_alone(cache: PlanCache) -> None:
    cache.store(KEY, b"plan", {}, good)
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(cache: PlanCache, mode: int) -> None:
    cache.store(KEY, b"plan", {}, good)
    cache.folder.chmod(mode)
    with pytest.raises(EngineError, match="other users can write there"):
        cache.newest(graph(), MACHINE)


def changed(value: Any) -> Any:
    return value + 1 if isinstance(value, int) else value + "x"


def every_other_key() -> list[tuple[str, PlanKey]]:
    """The key with one field changed, for each field that there is."""
    others = []
    for part in (KEY, MACHINE, KEY.recipe):
        for item in dataclasses.fields(part):
            value = getattr(part, item.name)
            if dataclasses.is_dataclass(value):
                continue
            other: Any = dataclasses.replace(part, **{item.name: changed(value)})
            where = {Machine: "machine", Recipe: "recipe"}.get(type(part))
            others.append(
                (item.name, dataclasses.replace(KEY, **{where: other}) if where else other)
            )
    return others


@pytest.mark.parametrize(("field", "other"), every_other_key())
def test_each_field_is_part_of_the_key(cache: PlanCache, field: str, other: PlanKey) -> None:
    cache.store(KEY, b"plan", {}, good)
    assert cache.find(other) is None, field


def test_the_key_has_all_that_a_plan_depends_on() -> None:
    assert {name for name, _ in every_other_key()} == {
        "graph_sha256", "precision", "engine", "tensorrt", "cuda", "driver", "gpu", "sm",
        "power_mode", "optimization_level", "workspace_mib",
    }  # fmt: skip


def test_weights_beside_the_graph_are_part_of_its_hash() -> None:
    def data(digit: str) -> dict[str, str]:
        return {"file": "o.data", "sha256": digit * 64}

    hashes = {graph_sha256(graph(data=d)) for d in (None, data("b"), data("c"))}
    assert len(hashes) == 3


@pytest.mark.parametrize("kind", [EngineError, RuntimeError, KeyboardInterrupt])
def test_a_plan_that_fails_its_check_is_not_kept(
    cache: PlanCache, kind: type[BaseException]
) -> None:
    def bad(plan: bytes) -> PlanCheck:
        assert plan == b"plan"
        raise kind("wrong numbers")

    with pytest.raises(kind, match="wrong numbers"):
        cache.store(KEY, b"plan", {}, bad)
    assert files(cache) == []


def test_a_failed_rebuild_leaves_the_old_plan(cache: PlanCache) -> None:
    def bad(plan: bytes) -> PlanCheck:
        raise EngineError("wrong numbers")

    cache.store(KEY, b"old", {}, good)
    with pytest.raises(EngineError):
        cache.store(KEY, b"new", {}, bad)
    assert cache.newest(graph(), MACHINE) == b"old"


@given(st.binary(max_size=40))
def test_a_changed_plan_is_never_found(tmp_path_factory: pytest.TempPathFactory, b: bytes) -> None:
    cache = PlanCache(tmp_path_factory.mktemp("plans"))
    cache.store(KEY, b"the plan as it was built", {}, good)
    (file,) = cache.folder.glob("*.plan")
    file.write_bytes(b)
    assert cache.find(KEY) is None
    with pytest.raises(EngineError, match="no plan for this machine; run: v2a build"):
        cache.newest(graph(), MACHINE)


@pytest.mark.parametrize("suffix", [".plan", ".json"])
def test_half_of_a_pair_is_nothing(cache: PlanCache, suffix: str) -> None:
    cache.store(KEY, b"plan", {}, good)
    (file,) = cache.folder.glob(f"*{suffix}")
    file.unlink()
    assert cache.find(KEY) is None


def test_a_damaged_note_is_named(cache: PlanCache) -> None:
    cache.store(KEY, b"plan", {}, good)
    (note,) = cache.folder.glob("*.json")
    note.write_text("{")
    with pytest.raises(EngineError, match=rf"{note.name}: is damaged .*; delete it and run"):
        cache.newest(graph(), MACHINE)


def test_the_newest_recipe_wins(cache: PlanCache) -> None:
    for level, age_s in ((5, 10), (3, 20), (1, 30)):
        key = dataclasses.replace(KEY, recipe=Recipe(optimization_level=level))
        cache.store(key, f"level {level}".encode(), {}, good)
        os.utime(cache.folder / f"{key.digest()}.json", (1e9 - age_s, 1e9 - age_s))
    assert cache.newest(graph(), MACHINE) == b"level 5"


@pytest.mark.parametrize("other", [{"sha256": "b" * 64}, {"precision": "fp16"}])
def test_another_graphs_plan_is_not_taken(cache: PlanCache, other: dict[str, str]) -> None:
    cache.store(KEY, b"plan", {}, good)
    with pytest.raises(EngineError, match=r"^graph observe: no plan for this machine; run: v2a"):
        cache.newest(graph(**other), MACHINE)


def test_a_miss_says_what_differs(cache: PlanCache) -> None:
    cache.store(KEY, b"plan", {}, good)
    here = dataclasses.replace(MACHINE, power_mode="pmode:0002", engine="rtx")
    with pytest.raises(EngineError) as miss:
        cache.newest(graph(), here)
    assert str(miss.value) == (
        "graph observe: no plan for this machine (there is one for engine trt, here rtx; "
        "power_mode pmode:0000, here pmode:0002); run: v2a build BUNDLE --engine rtx"
    )


def test_the_power_mode_is_read_where_a_jetson_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu("Orin", 87, True, 12060, "R36.4")
    status = tmp_path / "status"
    monkeypatch.setattr("runtime.engines.plan_cache.POWER_MODE", status)
    assert machine_of("trt", "10.3.0", gpu).power_mode == ""
    status.write_text("pmode:0000\n")
    assert machine_of("trt", "10.3.0", gpu) == MACHINE


def test_by_default_it_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert PlanCache().folder == Path("/elsewhere/v2a/plans")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/robot")
    assert PlanCache().folder == Path("/home/robot/.cache/v2a/plans")


def test_a_note_can_be_read_by_a_person(cache: PlanCache) -> None:
    cache.store(KEY, b"plan", {}, good)
    (note,) = cache.folder.glob("*.json")
    assert json.loads(note.read_text())["key"]["machine"]["gpu"] == "Orin"
