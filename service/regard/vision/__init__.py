"""Images: from a file's bytes to what a model is fed, and which part of the image each patch is."""
