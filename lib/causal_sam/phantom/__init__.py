"""Generated anatomies and images, for the training of the compact model and for the demo studies."""
