"""Benchmarks: ratios to a baseline that runs on the same server in the same run. See bench/README.md."""
