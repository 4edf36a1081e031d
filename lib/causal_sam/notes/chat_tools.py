"""Read-only tools that a chat model may call while it reads a note."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BaseModel, Field, ValidationError, create_model

from causal_sam.errors import InputError
from causal_sam.notes.request import NoteRequest
from causal_sam.notes.schema import Direction, Intervention, first_error

logger = logging.getLogger(__name__)

# Limits for one note; a preview takes as long as a correction.
MAX_TOOL_CALLS, MAX_PREVIEWS = 12, 3
TOOL_LIMIT_ANSWER = "Nothing more can be looked up for this note: answer with the plan."
PREVIEW_LIMIT_ANSWER = "Nothing more can be previewed for this note: answer with the best plan so far, or ask."


def make_tools(
    request: NoteRequest, act: type[BaseModel], clean: Callable[[str], str], check_not_stopped: Callable[[], None]
) -> list[BaseTool]:
    """Create the tools for one note: `list_labels`, and with a context also what that measures, expects and previews.

    No tool changes a mask. One that fails says so in its answer. There are at most `MAX_PREVIEWS` previews of plans.

    Args:
        request: note with its labels and context.
        act: schema of an intervention, restricted to the labels of the request.
        clean: function applied to each text of the context before the model sees it.
        check_not_stopped: function called before each use of a tool; its exception ends the conversation.
    """
    count, previews = itertools.count(1), itertools.count(1)

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

    def probability_beside(label: str) -> str:
        return json.dumps(_cleaned(context.probability_beside(label), clean), ensure_ascii=False)

    def plausible_end(label: str, direction: Direction) -> str:
        return json.dumps(_cleaned(context.plausible_end(label, direction), clean), ensure_ascii=False)

    def preview(interventions: Sequence[BaseModel]) -> str:
        try:
            plan = [Intervention.model_validate(each.model_dump()) for each in interventions]
        except ValidationError as error:
            return first_error(error)
        if next(previews) > MAX_PREVIEWS:
            return PREVIEW_LIMIT_ANSWER
        return clean(context.preview(plan, lambda done: check_not_stopped()))

    kind: Any = (act.model_fields["label"].annotation, ...)
    label, end = create_model("Label", label=kind), create_model("End", label=kind, direction=(Direction, ...))
    acts: Any = (list[act], Field(min_length=1))  # type: ignore[valid-type]  # made at run time
    plan = create_model("PreviewedPlan", interventions=acts)
    return [
        *tools,
        tool(
            measure_mask,
            label,
            "Measure the mask of a label: its volume in ml, its extent in mm, the number of its components, and the "
            "area in mm2 where it touches other labels.",
        ),
        tool(describe_style, nothing, "Describe how the image was made and looks: noise, sharpness, artefacts."),
        tool(
            probability_beside,
            label,
            "Say where the label probably goes on outside its mask, and where the mask is probably wrong, in ml by "
            "direction, as a network that knows the anatomy expects it.",
        ),
        tool(plausible_end, end, "Say how far beyond the end of its mask a label plausibly ends in a direction."),
        tool(
            preview,
            plan,
            "Say what a whole plan would change, in ml, by act and in all; which labels it would take from; which it "
            f"spares; and what would have to be confirmed. Nothing is changed. At most {MAX_PREVIEWS} times.",
        ),
    ]


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {clean(str(key)): _cleaned(each, clean) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_cleaned(each, clean) for each in value]
    return value if isinstance(value, int | float | None) else clean(str(value))
