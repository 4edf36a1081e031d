"""Trainers: one file for each registered task."""
