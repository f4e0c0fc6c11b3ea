"""Encoded datasets: what training, evaluation and sampling read."""
