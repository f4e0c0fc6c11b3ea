"""Training: the loop, the optimizer, the averaged weights, checkpoints and the lock of a run's scratch folder."""
