"""Masked diffusion: schedules, objectives and samplers. No network, no file and no dataset in here."""
