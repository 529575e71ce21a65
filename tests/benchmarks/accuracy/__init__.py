"""Every method of the stage table against known truth, by one command: `python -m tests.benchmarks.accuracy`."""
