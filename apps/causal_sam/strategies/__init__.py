"""Strategies that choose the study a client should label next."""
