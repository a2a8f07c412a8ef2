"""The live page of a run, its numbers for Prometheus, and its emergency stop."""
