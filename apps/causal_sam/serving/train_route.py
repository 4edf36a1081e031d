"""Starting a training off the event loop.

With ``run_sync`` MONAI Label's own endpoints, which are coroutines, train where they are, and nobody else would get an
answer until it is done.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends
from monailabel.config import settings
from monailabel.endpoints.train import run, run_model
from monailabel.endpoints.user.auth import RBAC, User

Admin = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]


def train(user: Admin, params: dict[str, Any] | None = None, run_sync: bool = False) -> Any:
    """Run all trainers as MONAI Label's endpoint does; being no coroutine, it runs in a thread."""
    return run(params, run_sync)


def train_model(
    model: str, user: Admin, params: dict[str, Any] | None = None, run_sync: bool = False, enqueue: bool = False
) -> Any:
    """Run a trainer as MONAI Label's endpoint does; being no coroutine, it runs in a thread."""
    return run_model(model, params, run_sync, enqueue)
