"""What a site teaches the model with its own labels."""

from causal_sam.learning.teaching import LabelTeacher, Lesson

__all__ = ["LabelTeacher", "Lesson"]
