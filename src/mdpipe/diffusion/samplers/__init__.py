"""Samplers: ways to turn masks into tokens, all drawing from a denoiser's distribution at each masked position."""
