"""Attention weights: which of them a request asks for, put together as it asks, and what labels them."""
