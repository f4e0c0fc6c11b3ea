"""Artifacts on disk: formats with stable bytes, and atomic writes."""
