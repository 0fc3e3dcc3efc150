"""Converts attention models from Hugging Face checkpoints into model packages."""
