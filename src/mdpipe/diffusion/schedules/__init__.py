"""Masking schedules: how the probability of the mask grows from time 0 (data) to time 1 (all masked)."""
