"""A simulated annotator prompts structures of labelled images with any number of methods, and corrects by clicks."""
