"""Measurements side by side with a rival in one run. Each module runs as `python -m benchmarks.NAME`."""
