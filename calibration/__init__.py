"""From a float bundle to a quantized one that keeps the task: statistics, search, verdict."""
