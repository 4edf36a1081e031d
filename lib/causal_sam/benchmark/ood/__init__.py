"""Benchmark across domains: train on some styles, test on others."""
