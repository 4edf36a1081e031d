"""Errors for users: each message is a sentence that states the problem and its solution."""


class CausalSamError(Exception):
    """Base class of all errors that Causal-SAM raises deliberately."""


class InputError(CausalSamError, ValueError):
    """The caller's input is invalid; a server answers with `status` instead of 500."""

    status = 422


class NotFoundError(InputError):
    """The caller named an image, label or file that does not exist."""

    status = 404


class CheckpointError(CausalSamError, RuntimeError):
    """Model weights are missing, damaged, or belong to another model."""
