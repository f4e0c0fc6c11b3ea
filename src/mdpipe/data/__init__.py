"""Data: from raw text and pictures to the batches of tokens that a model sees. Needs numpy; no torch, no network."""
