"""Measures how the code is laid out: rooms, import levels, sizes, types, docstrings.

    python tools/house.py [ROOT] [--json]

A room is a sub-package or a flat file of a top-level package. An arrow is an import from one room
to another, also inside a function or under `TYPE_CHECKING`. A room's level is the longest chain of
arrows below it. An arrow points upward when it closes a cycle between rooms.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

PACKAGES = ("runtime", "hw_drivers", "export", "v2a", "demo")
ARRAY = re.compile(r"\b(NDArray|ndarray|Tensor|Tensors|Vector|Image|Matrix)\b")
SHAPE = re.compile(r"\[[A-Z0-9a-z_+* ]+(, ?[A-Z0-9a-z_.+* ]+)*\]|scalar|shape", re.ASCII)
DICT_ANY = re.compile(r"dict\[str, Any\]")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Layout:
    """The rooms of one package and the imports between them."""

    files: int
    rooms: int
    levels: int
    arrows: int
    upward: int
    cycles: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Median, 90th percentile and maximum of a number of lines."""

    median: float
    p90: float
    max: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    found = measure(arguments.root)
    print(json.dumps(found, indent=1) if arguments.json else _table(found))


def measure(root: Path) -> dict[str, object]:
    """Measure the packages under `root`. The module's docstring explains the terms."""
    packages = [name for name in PACKAGES if (root / name).is_dir()]
    paths = [path for name in packages for path in sorted((root / name).rglob("*.py"))]
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    functions = [each for tree in trees.values() for each in _functions(tree)]
    runtime = [text for path, text in texts.items() if path.is_relative_to(root / "runtime")]
    arrays = [each for each in functions if _has_array(each)]
    return {
        "packages": {name: asdict(layout(root, name, trees)) for name in packages},
        "file_lines": asdict(_sizes([text.count("\n") for text in texts.values()])),
        "function_lines": asdict(_sizes([_length(each) for each in functions])),
        "runtime_dict_str_any": sum(len(DICT_ANY.findall(text)) for text in runtime),
        "public_functions_with_arrays": len(arrays),
        "of_these_without_shape": sum(not _says_shape(each) for each in arrays),
    }


def layout(root: Path, package: str, trees: dict[Path, ast.Module]) -> Layout:
    """Measure the rooms of `package` and how they import each other."""
    modules = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in trees
        if path.is_relative_to(root / package)
    }
    room_of = {name: _room(name, path, root / package) for name, path in modules.items()}
    arrows: set[tuple[str, str]] = set()
    for name, path in modules.items():
        for target in _imports(trees[path], name):
            while target and target not in room_of:
                target = target.rpartition(".")[0]
            if target and room_of[target] and room_of[name] and room_of[target] != room_of[name]:
                arrows.add((room_of[name], room_of[target]))
    rooms = set(room_of.values()) - {""}
    cycles = _cycles(rooms, arrows)
    upward = sum(any(a in cycle and b in cycle for cycle in cycles) for a, b in arrows)
    return Layout(len(modules), len(rooms), _levels(arrows), len(arrows), upward, len(cycles))


def _room(module: str, path: Path, package: Path) -> str:
    """The sub-package or flat file of a module; "" for the package itself."""
    parts = path.relative_to(package).parts
    if len(parts) > 1:
        return parts[0] + "/"
    return "" if path.name in ("__init__.py", "__main__.py") else path.stem


def _imports(tree: ast.Module, module: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _reachable(start: str, arrows: set[tuple[str, str]]) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        here = left.pop()
        found = {b for a, b in arrows if a == here} - seen
        seen |= found
        left += found
    return seen


def _cycles(rooms: set[str], arrows: set[tuple[str, str]]) -> set[frozenset[str]]:
    """The groups of rooms that import each other in a circle."""
    below = {room: _reachable(room, arrows) for room in rooms}
    return {
        frozenset(other for other in rooms if other in below[room] and room in below[other])
        for room in rooms
        if room in below[room]
    }


def _levels(arrows: set[tuple[str, str]]) -> int:
    """The number of rooms on the longest chain of imports; a circle counts as one."""
    rooms = {room for arrow in arrows for room in arrow}
    group = {room: frozenset({room}) for room in rooms}
    for cycle in _cycles(rooms, arrows):
        group.update(dict.fromkeys(cycle, cycle))
    below: dict[frozenset[str], set[frozenset[str]]] = {}
    for a, b in arrows:
        below.setdefault(group[a], set()).add(group[b])
    depth: dict[frozenset[str], int] = {}

    def level(node: frozenset[str]) -> int:
        if node not in depth:
            depth[node] = 1 + max((level(b) for b in below.get(node, ()) if b != node), default=0)
        return depth[node]

    return max((level(node) for node in group.values()), default=1)


def _functions(tree: ast.Module) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def _length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _sizes(lines: list[int]) -> Sizes:
    return Sizes(median(lines), quantiles(lines, n=10)[-1], max(lines))


def _has_array(function: Function) -> bool:
    """Whether a public function takes or returns an array."""
    if function.name.startswith("_"):
        return False
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    hints = [argument.annotation for argument in arguments] + [function.returns]
    return any(ARRAY.search(ast.unparse(hint)) for hint in hints if hint is not None)


def _says_shape(function: Function) -> bool:
    return bool(SHAPE.search(ast.get_docstring(function) or ""))


def _table(found: dict[str, object]) -> str:
    lines = [f"{'package':<12}" + "".join(f"{name:>8}" for name in Layout.__dataclass_fields__)]
    packages = found["packages"]
    assert isinstance(packages, dict)
    for name, row in packages.items():
        lines.append(f"{name:<12}" + "".join(f"{value:>8}" for value in row.values()))
    lines += [f"{name}: {value}" for name, value in found.items() if name != "packages"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
