"""Images that clients upload: for one request, or for a session of many."""
