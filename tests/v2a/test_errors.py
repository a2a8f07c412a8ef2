"""The error tree, its exit codes, and the drawing of it."""

from __future__ import annotations

import re

import pytest

from v2a import errors
from v2a.errors import BusError, CameraEnded, CameraError, PortError, V2AError


def all_errors() -> list[type[V2AError]]:
    found = [V2AError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return [cls for cls in found if cls.__module__ == "v2a.errors"]


def test_each_kind_has_its_own_exit_code_and_a_special_case_its_kind_s() -> None:
    kinds = [cls for cls in all_errors() if cls.__base__ in (V2AError, Exception)]
    assert len({cls.exit_code for cls in kinds}) == len(kinds)
    assert PortError.exit_code == BusError.exit_code
    assert CameraEnded.exit_code == CameraError.exit_code


@pytest.mark.parametrize("cls", all_errors())
def test_the_drawing_in_the_docstring_is_the_tree(cls: type[V2AError]) -> None:
    assert errors.__doc__ is not None
    drawn = re.search(rf"^.*\b{cls.__name__}\b\D*(\d+)", errors.__doc__, re.MULTILINE)
    assert drawn is not None
    assert int(drawn[1]) == cls.exit_code
