"""Simulated people: where they click, which errors masks have, and what is written about them."""
