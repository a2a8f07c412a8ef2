"""Checks YAML files against pydantic models and reports every fault with its file and line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError

from v2a.errors import ConfigError

ModelT = TypeVar("ModelT", bound=BaseModel)
KeyLine = tuple[tuple[str, ...], int]  # a key's path and its line, counted from 1
Loc = tuple[int | str, ...]
Fault = tuple[str, str]  # a key's path below the model, "joints.1.id", and what is wrong with it

_SHOWN_INPUT_CHARS = 60
_PLAIN = {  # pydantic's own words name classes of Python
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
}
_SCALARS = ("bool", "int", "float", "str")
_MOST_KEYS = 100_000  # aliases of aliases can stand for more than any memory holds
_DEEPEST_NESTING = 40  # also stops at an alias that contains itself


def _make_scalars_strict(schema: Any) -> None:
    if isinstance(schema, dict):
        if schema.get("type") in _SCALARS:
            schema["strict"] = True
        if schema.get("type") == "literal" and type(schema["expected"][0]) is int:
            literal = dict(schema)  # for which True and 1.0 are 1
            schema.clear()
            schema.update(type="chain", steps=[{"type": "int", "strict": True}, literal])
            return
        for part in schema.values():
            _make_scalars_strict(part)
    elif isinstance(schema, (list, tuple)):
        for part in schema:
            _make_scalars_strict(part)


class Strict(BaseModel):
    """Base of every config and manifest model. Models are immutable and allow no unknown key.

    NaN and infinity are faults: every comparison with NaN is false, so it would pass limit checks.
    A number must be a number: `yes` is not 1.0, and the text "5" is not 5. An int may stand for a
    float.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Make the scalars strict. A strict model would refuse lists for tuples as well."""
        schema = handler(source)
        _make_scalars_strict(schema)
        return schema


def load_yaml(path: Path, model: type[ModelT]) -> ModelT:
    """Read the YAML file `path` into `model`.

    The model's validators find the file's folder in context["folder"].
    Raises ConfigError listing every fault, one per line:
    `robot.yaml:11: bus.joints.1.id: Input should be less than or equal to 252 (got 300)`
    """
    data, keys = _parse(path)
    lines = dict(keys)
    faults = list(_duplicates(keys))
    try:
        config = model.model_validate(data, context={"folder": path.parent})
    except ValidationError as error:
        faults += [
            (_line_of(loc, lines), text)
            for details in error.errors(include_url=False)
            if not _follows_from_another(details)
            for loc, text in _by_key(details, model)
        ]
    if faults:
        raise ConfigError("\n".join(f"{path}:{line}: {text}" for line, text in sorted(faults)))
    return config


def _follows_from_another(details: ErrorDetails) -> bool:
    """Whether pydantic calls a list too short only because its items have faults of their own."""
    if details["type"] != "too_short" or not isinstance(details["input"], list):
        return False
    return bool(len(details["input"]) >= details["ctx"]["min_length"])


def faults_of_keys(faults: list[Fault]) -> PydanticCustomError:
    """Make the error that a model's validator raises for keys below it, each with its own line."""
    text = "; ".join(f"{key}: {what}" for key, what in faults)
    return PydanticCustomError("keys", "{text}", {"text": text, "faults": faults})


def _by_key(details: ErrorDetails, model: type[BaseModel]) -> Iterator[tuple[Loc, str]]:
    """Yield where each fault of one pydantic error is, and its text."""
    loc = details["loc"]
    if details["type"] != "keys":
        yield loc, describe_fault(details, model)
        return
    for key, what in details["ctx"]["faults"]:
        place = (*loc, *key.split("."))
        yield place, f"{_dotted(place)}: {what}"


def describe_fault(details: ErrorDetails, model: type[BaseModel]) -> str:
    """Format one pydantic error as `key.path: what is wrong (got value)`."""
    where = _dotted(details["loc"])
    return f"{where}: {_message(details, model)}" if where else _message(details, model)


def _dotted(loc: Loc) -> str:
    return ".".join(map(str, loc))


def _message(details: ErrorDetails, model: type[BaseModel]) -> str:
    if details["type"] == "missing":
        return "this key is missing"
    if details["type"] == "extra_forbidden":
        known = sorted(_known_keys(model, details["loc"][:-1]))
        return f"unknown key, {suggest(str(details['loc'][-1]), known)}"
    if details["type"] == "keys":
        return details["msg"]
    text = _PLAIN.get(details["type"]) or details["msg"].removeprefix("Value error, ")
    return f"{text} (got {_shorten(repr(details['input']))})"


def suggest(word: str, known: list[str]) -> str:
    """Return `did you mean 'x'?`, or list all known words when none is similar."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_INPUT_CHARS else text[: _SHOWN_INPUT_CHARS - 3] + "..."


def _known_keys(model: type[BaseModel], loc: Loc) -> set[str]:
    """Return the keys that `model` allows at `loc`, from its JSON schema."""
    root = model.model_json_schema()
    nodes = list(_alternatives(root, root))
    for part in loc:
        children = [child for node in nodes if (child := _child(node, part)) is not None]
        # A part without a child is the tag by which pydantic names the member of a union.
        nodes = [a for child in children for a in _alternatives(child, root)] or nodes
    return {key for node in nodes for key in node.get("properties", {})}


def _alternatives(node: dict[str, Any], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in node:
        yield from _alternatives(root["$defs"][node["$ref"].rsplit("/", 1)[-1]], root)
    for member in [*node.get("anyOf", []), *node.get("oneOf", [])]:
        yield from _alternatives(member, root)
    yield node


def _child(node: dict[str, Any], part: int | str) -> dict[str, Any] | None:
    properties = node.get("properties", {})
    child = properties.get(part) or node.get("additionalProperties") or node.get("items")
    return child if isinstance(child, dict) else None


class _Loader(yaml.SafeLoader):
    """Reads numbers as they look: 1e3 is a number; 010 is not 8, 1:30 is not 90, 1_0 is not 10.

    YAML 1.1 reads the first as text, and the others as octal, as base 60 and as 10. Here those
    three are text, which no number accepts.
    """


_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag not in _NUMBERS]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?((0|[1-9][0-9]*)?\.[0-9]+|(0|[1-9][0-9]*)\.?)([eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def _parse(path: Path) -> tuple[Any, list[KeyLine]]:
    """Return the file's plain data and the line of every key."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{path}: is empty; expected a mapping of keys")
        keys = list(islice(_key_lines(node, ()), _MOST_KEYS + 1))
        if len(keys) > _MOST_KEYS:
            raise ConfigError(f"{path}: has more than {_MOST_KEYS} keys, with those of its aliases")
        return loader.construct_document(node), keys
    except RecursionError:
        raise ConfigError(f"{path}: nested more than {_DEEPEST_NESTING} deep") from None
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{path}:{mark.line + 1 if mark else 1}: {error.problem}") from None
    # ValueError: the file is not UTF-8, or PyYAML passes on datetime's error for 2026-99-99.
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {str(error).splitlines()[0]}") from None


def _key_lines(node: yaml.Node, path: tuple[str, ...]) -> Iterator[KeyLine]:
    if len(path) > _DEEPEST_NESTING:
        problem = f"nested more than {_DEEPEST_NESTING} deep"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            key_path = (*path, str(key.value))
            yield key_path, key.start_mark.line + 1
            yield from _key_lines(value, key_path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            item_path = (*path, str(index))
            yield item_path, value.start_mark.line + 1
            yield from _key_lines(value, item_path)


def _duplicates(keys: list[KeyLine]) -> Iterator[tuple[int, str]]:
    first_lines: dict[tuple[str, ...], int] = {}
    for path, line in keys:
        if path in first_lines:
            text = f"this key is already on line {first_lines[path]}; remove one"
            yield line, f"{'.'.join(path)}: {text}"
        first_lines.setdefault(path, line)


def _line_of(loc: Loc, lines: dict[tuple[str, ...], int]) -> int:
    """Return the line of the key, or of its nearest parent that the file contains."""
    path = tuple(map(str, loc))
    prefixes = (path[:n] for n in range(len(path), 0, -1))
    return next((lines[prefix] for prefix in prefixes if prefix in lines), 1)
