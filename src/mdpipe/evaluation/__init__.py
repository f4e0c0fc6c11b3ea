"""Evaluation: likelihood bounds with standard errors, sample quality, and reference rates."""
