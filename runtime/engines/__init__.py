"""Engines load one graph of a bundle and run it."""

from __future__ import annotations

from runtime.engines.base import BACKENDS, Engine, EngineFactory, Tensors, load

__all__ = ["BACKENDS", "Engine", "EngineFactory", "Tensors", "load"]
