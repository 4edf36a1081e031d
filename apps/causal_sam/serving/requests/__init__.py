"""The border: what every HTTP request has to pass before an endpoint sees it."""
