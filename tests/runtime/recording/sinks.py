"""Sinks for the recorder process beside the file: they are made there, by name."""

from __future__ import annotations

from pathlib import Path

from v2a.errors import ConfigError


class Noting:
    """Writes down the kind of each message, and that it was closed."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("a")

    def take(self, message: object) -> None:
        print(type(message).__name__, file=self._file, flush=True)

    def close(self) -> None:
        print("closed", file=self._file, flush=True)


class Failing:
    def take(self, message: object) -> None:
        raise RuntimeError("it fell over")

    def close(self) -> None:
        raise AssertionError("it had ended")


class Refusing:
    def __init__(self, port: int) -> None:
        raise ConfigError(f"port {port} is taken; choose another")
