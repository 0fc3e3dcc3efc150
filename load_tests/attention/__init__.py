"""What attention costs: whoever asks for it, and whoever is served beside them."""
