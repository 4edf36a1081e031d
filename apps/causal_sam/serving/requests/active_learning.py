"""Choosing the next study, with the client known."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from monailabel.config import settings
from monailabel.endpoints.activelearning import sample
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from serving.requests.background_tasks import check_known
from serving.requests.options import checked_client_id


def next_sample(
    request: Request,
    strategy: str,
    user: Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
    params: dict[str, Any] | None = None,
) -> Any:
    """Choose a study as MONAI Label's endpoint does.

    Slicer says which client it is. OHIF does not, and without authentication all users have one name, so its address
    tells whose study it is.

    Raises:
        NotFoundError: there is no such strategy.
        InputError: the client's name for itself is none.
    """
    check_known("strategy", strategy, app_instance()._strategies)
    client = checked_client_id(params)
    if client is None:
        address = request.client.host if request.client else "unknown"
        client = user.username if settings.MONAI_LABEL_AUTH_ENABLE else f"address {address}"
    return sample(strategy, {"client_id": client}, user.username)
