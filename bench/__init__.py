"""Benchmarks: ratios beside a baseline on the same server in the same run. See bench/README.md."""
