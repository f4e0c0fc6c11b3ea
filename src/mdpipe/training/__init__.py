"""Training: the loop, optimizers, distributed training, checkpoints, metrics and loggers."""
