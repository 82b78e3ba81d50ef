"""Speed and memory against rivals, measured in the same run: ``python -m benchmarks [--rows a,b] [--quick]``."""
