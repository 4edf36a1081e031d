"""Which study a client should label next."""
