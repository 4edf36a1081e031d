"""Reasons to ask back instead of acting on a note."""

from __future__ import annotations


class ClarificationNeeded(Exception):
    """The note cannot be acted on; the message is the question to ask."""


class NotUnderstood(ClarificationNeeded):
    """The rules do not understand the note, or a part of it; whoever understands it need not ask."""
