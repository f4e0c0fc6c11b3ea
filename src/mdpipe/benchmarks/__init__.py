"""Benchmarks: the speed and memory of data preparation, training and sampling on this machine."""
