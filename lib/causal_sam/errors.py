"""Errors that reach a person: each message is one sentence that says what is wrong and what would be right."""


class CausalSamError(Exception):
    """Base of all errors that Causal-SAM raises on purpose."""


class InputError(CausalSamError, ValueError):
    """What the caller gave cannot be used; a server answers `status` instead of 500."""

    status = 422


class NotFoundError(InputError):
    """The caller named an image, label or file that does not exist."""

    status = 404


class CheckpointError(CausalSamError, RuntimeError):
    """Model weights are missing, damaged, or not of the model they were loaded into."""
