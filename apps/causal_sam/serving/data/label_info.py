"""Checks of a label's tag and info before it is saved: the data store must always be able to read them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import DefaultLabelTag

from causal_sam.errors import InputError
from causal_sam.site.accepted import named_values, value_problem
from causal_sam.site.label_files import CHECKSUM
from serving.data.index import storable
from serving.data.label_set import checked_label
from serving.requests.identifiers import checked_identifier


def checked_tag(tag: Any) -> str:
    """Check the tag of a label, which is the name of a folder.

    Raises:
        InputError: it cannot be used.
    """
    return checked_identifier(tag.value if isinstance(tag, DefaultLabelTag) else tag or "final", "label tag")


def checked_info(info: Mapping[str, Any] | None) -> dict[str, Any]:
    """Check what a client says about a label: it must be readable later, and its names be names of structures.

    Raises:
        InputError: it cannot be used.
    """
    checked = storable(info or {}, "label's params")
    checked.pop(CHECKSUM, None)  # is the server's own to say
    if problem := value_problem(checked):
        raise InputError(problem)
    for name, _ in named_values(checked):
        checked_label(name)
    return checked
