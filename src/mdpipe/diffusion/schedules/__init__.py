"""Masking schedules: how fast tokens turn into the mask as time runs from 0 (data) to 1 (all masked), one a file."""
