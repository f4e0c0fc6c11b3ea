"""Samplers: algorithms that replace masks by tokens, drawn from a denoiser's distributions, one kind per file."""
