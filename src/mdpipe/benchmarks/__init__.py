"""Benchmarks: how fast the parts run on this machine, each measurement in a process of its own."""
