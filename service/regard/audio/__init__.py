"""Sound: from a file's bytes, or samples, to what a model is fed, window by window."""
