"""The ground floor of v2a: errors, names, clock, spans, config, the bundle, the command line."""

__all__ = ["__version__"]

__version__ = "0.1.0"
