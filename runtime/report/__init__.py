"""Draws a profile and its recording as one HTML page: where the time went, and what was late."""

from runtime.report.page import write_report

__all__ = ["write_report"]
