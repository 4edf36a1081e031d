"""How well notes correct masks (TCI): simulated errors, notes about them, and what becomes of the masks."""
