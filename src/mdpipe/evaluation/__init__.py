"""Evaluation: likelihood bounds with their standard errors, zero-shot corpora, and reference rates."""
