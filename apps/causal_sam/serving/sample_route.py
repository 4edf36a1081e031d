"""Choosing the next study, and scoring at once, off the event loop, with the client known.

MONAI Label's own endpoints are coroutines that do this where they are. With a DICOMweb server the next study may have
to be fetched, and scoring reads all labels; nobody else would get an answer meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import Depends, Request
from monailabel.config import settings
from monailabel.endpoints.activelearning import sample
from monailabel.endpoints.scoring import run_method
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from causal_sam.errors import NotFoundError


def next_sample(
    request: Request,
    strategy: str,
    user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
    params: dict[str, Any] | None = None,
) -> Any:
    """Choose a study as MONAI Label's endpoint does; being no coroutine, it runs in a thread.

    Slicer says which client it is. OHIF does not, and without authentication all users have one name, so its address
    tells whose study it is.

    Raises:
        NotFoundError: there is no such strategy.
    """
    _check_name("strategy", strategy, app_instance()._strategies)
    params = dict(params or {})
    if not params.get("client_id"):
        address = request.client.host if request.client else "unknown"
        params["client_id"] = user.username if settings.MONAI_LABEL_AUTH_ENABLE else f"address {address}"
    return sample(strategy, params, user.username)


def score(
    method: str,
    user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))],
    params: dict[str, Any] | None = None,
    run_sync: bool = False,
) -> Any:
    """Run a scoring method as MONAI Label's endpoint does; being no coroutine, it runs in a thread.

    Raises:
        NotFoundError: there is no such method.
    """
    _check_name("scoring method", method, app_instance()._scoring_methods)
    return run_method(method, params, run_sync)


def _check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """MONAI Label takes an unknown strategy for an error of the server, and starts a process for an unknown method."""
    if name not in known:
        raise NotFoundError(f"There is no {kind} {name!r}; this server has {', '.join(known)}.")
