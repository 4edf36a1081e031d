"""Scoring methods: quality of the answers, and work left to people."""
