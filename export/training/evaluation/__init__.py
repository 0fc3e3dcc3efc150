"""Quality, measured twice: of a checkpoint with Transformers, and of its packages through the service."""
