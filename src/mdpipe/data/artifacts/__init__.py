"""Artifacts on the disk: formats with stable bytes, and files and folders that appear whole or not at all."""
