"""Samplers: algorithms that replace masks by tokens, sampled from a denoiser's distributions."""
