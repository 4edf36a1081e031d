"""Read-only tools that a chat model may call while it reads a note."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, ValidationError, create_model

from causal_sam.errors import InputError
from causal_sam.notes.request import NoteRequest
from causal_sam.notes.schema import Intervention, first_error

logger = logging.getLogger(__name__)

# Limit for one note: a preview takes as long as a correction.
MAX_TOOL_CALLS = 12
TOOL_LIMIT_ANSWER = "Nothing more can be looked up for this note: answer with the plan."


def make_tools(
    request: NoteRequest, act: type[BaseModel], clean: Callable[[str], str], check_not_stopped: Callable[[], None]
) -> list[BaseTool]:
    """Create the tools for one note: `list_labels`, and with a context also its measurements and previews.

    A tool that fails says so in its answer.

    Args:
        request: note with its labels and context.
        act: schema of an intervention, restricted to the labels of the request.
        clean: function applied to each text of the context before the model sees it.
        check_not_stopped: function called before each use of a tool; its exception ends the conversation.
    """
    count = itertools.count(1)

    def tool(function: Callable[..., str], schema: type[BaseModel], description: str) -> BaseTool:
        def answer(**arguments: Any) -> str:
            check_not_stopped()
            if next(count) > MAX_TOOL_CALLS:
                return TOOL_LIMIT_ANSWER
            try:
                return function(**arguments)
            except InputError as error:
                return clean(str(error))
            except Exception:
                logger.exception("The tool %s failed", function.__name__)
                return "This is not available."

        return StructuredTool.from_function(answer, name=function.__name__, description=description, args_schema=schema)

    def list_labels() -> str:
        return json.dumps(request.labels, ensure_ascii=False)

    nothing = create_model("Nothing")
    tools = [tool(list_labels, nothing, "List the labels that have a mask.")]
    context = request.context
    if context is None:
        return tools

    def measure_mask(label: str) -> str:
        return json.dumps(_cleaned(context.measure(label), clean), ensure_ascii=False)

    def describe_style() -> str:
        return clean(context.style())

    def preview(**fields: Any) -> str:
        try:
            intervention = Intervention.model_validate(fields)
        except ValidationError as error:
            return first_error(error)
        return clean(context.preview(intervention))

    kind: Any = (act.model_fields["label"].annotation, ...)
    label = create_model("Label", label=kind)
    return [
        *tools,
        tool(
            measure_mask,
            label,
            "Measure the mask of a label: its volume in ml, its extent in mm, the number of its components, and the "
            "area in mm2 where it touches other labels.",
        ),
        tool(describe_style, nothing, "Describe how the image was made and looks: noise, sharpness, artefacts."),
        tool(preview, act, "Say what an intervention would change, in ml. Nothing is changed."),
    ]


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {clean(str(key)): _cleaned(each, clean) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_cleaned(each, clean) for each in value]
    return value if isinstance(value, int | float | None) else clean(str(value))
