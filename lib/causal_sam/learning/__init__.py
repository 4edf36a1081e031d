"""What a site teaches the model with its own labels, and the versions of what it learnt."""
