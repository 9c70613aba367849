"""A run beside earlier runs: baseline, calibration, history."""
