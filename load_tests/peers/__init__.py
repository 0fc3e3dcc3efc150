"""Side by side with the peers: the same checkpoint, machine and minute for every contestant."""
