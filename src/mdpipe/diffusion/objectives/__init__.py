"""Objectives: losses that train a denoiser and likelihood bounds that evaluate it."""
