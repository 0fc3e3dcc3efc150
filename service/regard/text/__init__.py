"""Text to tokens and back; words; where each stands."""
