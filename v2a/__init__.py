"""What every other package uses: errors, names, clock, spans, config, bundle, command line."""

__all__ = ["__version__"]

__version__ = "0.1.0"
