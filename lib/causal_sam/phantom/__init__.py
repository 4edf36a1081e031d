"""Generated anatomies and images: what the compact model is trained on, and the demo studies."""
