"""The gRPC services, and what they need around them: the door, errors, health, HTTP."""
