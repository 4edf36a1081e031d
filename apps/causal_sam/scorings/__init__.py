"""How good the answers were, and how much work they left."""
