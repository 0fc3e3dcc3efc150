"""From scores to decisions: which tokens a request's rows take next. Pure functions and plain state."""

from regard.engine.search.greedy import Choice, candidates_needed, finish_reason, forced_token, greedy

__all__ = ["Choice", "candidates_needed", "finish_reason", "forced_token", "greedy"]
