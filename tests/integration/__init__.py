"""Tests against the real server, over HTTP, with the requests of its real clients."""
