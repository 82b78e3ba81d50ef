"""Evaluation per impression: official metrics, intervals over users, calibration and baselines."""
