"""Route of the notes that were written about a case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from serving.page.visits import ToCase, app

router = APIRouter(prefix="/cases/{case}")
WRITTEN = ("note", "refused")
CHANGED = {"undo": True, "redo": False}


class NoteEntry(BaseModel):
    """A note that was carried out or refused.

    Attributes:
        act: "note" if it was carried out, or "refused".
        answer: why it was refused.
        effects: acts of the note, with the label and what it gained and lost in ml.
        is_undone: whether the note was undone, and not done again since.
    """

    time: str
    user: str | None
    act: str
    note: str
    answer: str | None = None
    effects: list[dict[str, Any]] = []
    is_undone: bool = False


@router.get("/notes")
async def list_notes(case: ToCase) -> list[NoteEntry]:
    """List the notes on this image by all users, the oldest first.

    Raises:
        NotFoundError: there is no such image.
    """

    def read() -> list[NoteEntry]:
        case.image()  # there must be one
        return notes_in(
            entry
            for entry in app().resources.journal.entries()
            if entry.get("image") == case.image_id and entry.get("frame") == case.frame
        )

    return await case.run(read)


def notes_in(entries: Iterable[Mapping[str, Any]]) -> list[NoteEntry]:
    """Return the notes of a journal with their states.

    Args:
        entries: the journal, the oldest first.
    """
    notes: list[NoteEntry] = []
    for entry in entries:
        if entry.get("act") in WRITTEN:
            notes.append(NoteEntry.model_validate(entry))
        undone = CHANGED.get(entry.get("act"))
        if undone is None:
            continue
        # Undo takes back the last of several equal notes, and redo does the first of them again.
        same = [
            note
            for note in notes
            if (note.act, note.user, note.note) == ("note", entry.get("user"), entry.get("note"))
            and note.is_undone != undone
        ]
        if same:
            same[-1 if undone else 0].is_undone = undone
    return notes
