"""Changes single values of a YAML file and leaves its comments and layout as they are."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from v2a.errors import ConfigError

Path = tuple[str | int, ...]  # keys and list positions from the root to a value


def with_values(text: str, values: Mapping[Path, float]) -> str:
    """Return the YAML `text` with a new number at each path. Pure function.

    Raises ConfigError if a path leads to no scalar of its own, e.g. to an alias.
    """
    root = yaml.compose(text, yaml.SafeLoader)
    places = [(_span(root, path), value) for path, value in values.items()]
    if len({span for span, _ in places}) < len(places):
        raise ConfigError("two of the values are one: an alias (*name) stands for it")
    for (start, end), value in sorted(places, reverse=True):  # from the end: no place moves
        text = f"{text[:start]}{value}{text[end:]}"
    return text


def _span(root: yaml.Node | None, path: Path) -> tuple[int, int]:
    """Where the value at `path` begins and ends in the text."""
    node = root
    for part in path:
        node = _child(node, part)
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigError(f"{'.'.join(map(str, path))}: there is no such value to change")
    return node.start_mark.index, node.end_mark.index


def _child(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        return node.value[part] if part < len(node.value) else None
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == part), None)
    return None
