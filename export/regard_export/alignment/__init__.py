"""Word alignment from attention: which heads tell it, chosen by a statistical aligner's links, measured on gold."""
