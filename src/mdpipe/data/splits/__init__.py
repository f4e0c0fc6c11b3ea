"""Splits: what of a source is for training, validation and testing."""
