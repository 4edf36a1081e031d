"""The inference tasks that clients see, one file for each kind."""
