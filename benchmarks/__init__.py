"""What we claim, measured beside others in one run: `python -m benchmarks --help`."""
