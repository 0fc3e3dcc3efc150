"""The engine: sessions, rows, scheduling, search, and one `step()` for each kind of model."""
