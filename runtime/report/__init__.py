"""One self-contained HTML page about a profiled run: where the time went, and what was late."""

from runtime.report.page import write_report

__all__ = ["write_report"]
