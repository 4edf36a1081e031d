"""Volume context: a small 3D network over the slice embeddings, which gives prompts their third dimension."""
