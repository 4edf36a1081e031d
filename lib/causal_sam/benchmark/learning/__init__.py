"""A simulated annotator works through cases, accepts each, and the model learns from what was accepted."""
