"""Benchmark of corrections by notes (TCI): simulated errors, notes about them, and the corrected masks."""
