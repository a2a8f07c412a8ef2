"""Runs a recording through the runtime's own System 1 and System 2 again: docs/replay.md."""
