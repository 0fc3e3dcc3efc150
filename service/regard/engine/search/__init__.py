"""From scores to decisions: which tokens a request's rows take next. Pure functions and plain state."""
