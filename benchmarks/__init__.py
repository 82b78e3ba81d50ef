"""Measures of speed and memory against rivals, side by side: ``python -m benchmarks [--quick] [--rows a,b]``."""
