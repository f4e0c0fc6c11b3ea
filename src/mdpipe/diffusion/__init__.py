"""Masked diffusion: schedules, objectives and samplers. This package knows no network, file or dataset."""
