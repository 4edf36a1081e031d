"""The browser page at ``/causal-sam/``, and the routes under ``/causal-sam/api`` that it works through."""
