"""The routes of sessions, in place of MONAI Label's, which trust ids, names, archives and their own files."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, File, UploadFile
from fastapi.responses import FileResponse, Response
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import get_mime_type

from causal_sam.errors import InputError, NotFoundError
from serving.sessions.store import Session, SessionStore

_User = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]


class SessionsOffError(InputError):
    """MONAI Label is started without sessions."""

    status = 406


def open_session(session_id: str, *, update_ts: bool = True) -> Session:
    """Return a session of the running app.

    Raises:
        SessionsOffError: the server has none at all.
        NotFoundError: there is none of this id.
    """
    session = _store().get_session(session_id, update_ts)
    if session is None:
        raise NotFoundError(f"There is no session {session_id[:40]!r}: it expired or never was; create a new one.")
    return session


def get_session(
    user: _User, session_id: str, update_ts: bool = False, image: bool = False
) -> Response | dict[str, Any]:
    """Describe a session, or send its image."""
    session = open_session(session_id, update_ts=update_ts)
    if not image:
        return session.to_json()
    if not session.image.is_file():
        raise InputError("The session holds a series of several files, which are not sent back.")
    path = str(session.image)
    return FileResponse(path, media_type=get_mime_type(path), filename=session.image.name)


def create_session(
    user: _User, files: Annotated[list[UploadFile], File()], uncompress: bool = False, expiry: int = 0
) -> dict[str, Any]:
    """Keep uploaded files as a session. The border refuses ``uncompress`` unless the operator has switched it on."""
    session = _store().add_session(files, expiry, is_archive=uncompress)
    return {"session_id": session.name, "session_info": session.to_json()}


def remove_session(user: _User, session_id: str) -> dict[str, Any]:
    """Remove a session."""
    session = open_session(session_id, update_ts=False)
    _store().remove_session(session_id)
    return session.to_json()


def _store() -> SessionStore:
    store = app_instance().sessions()
    if store is None:
        raise SessionsOffError("This server has no sessions: MONAI_LABEL_SESSIONS is off.")
    return store
