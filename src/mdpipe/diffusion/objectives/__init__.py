"""Objectives: what a denoiser is trained by and how its likelihood is bounded, one a file."""
