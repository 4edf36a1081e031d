"""Roles of users, and sign-in with OpenID Connect in threads of its own.

MONAI Label calls the sign-in server on the event loop, and accepts no token at all with PyJWT 2, which requires the
list of algorithms. MONAI Label itself checks the roles.
"""

from __future__ import annotations

from functools import reduce
from typing import Annotated, Any

import anyio
import jwt
import requests
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordRequestForm
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User, get_current_user, get_public_key, oauth2_scheme, token_uri

from serving.requests.errors import RefusedError

# Dependency for an endpoint's parameter ``user``: a user who has the role.
Reader = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
Annotator = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]
Admin = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]
# With one key for both, an attacker could sign by a symmetric algorithm with the public key.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_threads = anyio.CapacityLimiter(16)


def install_sign_in(app: FastAPI) -> None:
    """Let the routes learn from `current_user` who asks, if users sign in."""
    if settings.MONAI_LABEL_AUTH_ENABLE:
        app.dependency_overrides[get_current_user] = current_user


async def current_user(token: Annotated[str, Depends(oauth2_scheme)]) -> User:
    """Return the user that a token is for.

    Raises:
        HTTPException: the token is not valid (401).
        RefusedError: the sign-in server does not answer as it should (502).
    """
    return await anyio.to_thread.run_sync(user_of, token, limiter=_threads)


def user_of(token: str) -> User:
    """Return the same as `current_user`; waits for the sign-in server the first time."""
    try:
        key = get_public_key(settings.MONAI_LABEL_AUTH_REALM_URI)
    except (requests.RequestException, KeyError) as error:
        raise _no_answer() from error
    try:
        payload = jwt.decode(token, key, algorithms=ALGORITHMS, options={"verify_aud": False})
        return User(
            username=payload[settings.MONAI_LABEL_AUTH_TOKEN_USERNAME],
            email=payload.get(settings.MONAI_LABEL_AUTH_TOKEN_EMAIL),
            name=payload.get(settings.MONAI_LABEL_AUTH_TOKEN_NAME),
            roles=reduce(_inside, settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"), payload) or [],
        )
    except (jwt.InvalidTokenError, KeyError, ValueError) as error:
        raise HTTPException(
            401, "The token of the request is not valid; sign in again.", {"WWW-Authenticate": "Bearer"}
        ) from error


def access_token(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> Any:
    """Fetch a token for a user's name and password.

    Raises:
        RefusedError: they are wrong (401), or the sign-in server does not answer as it should (502).
    """
    sent = {"username": form.username, "password": form.password, "grant_type": "password"}
    try:
        answer = requests.post(
            token_uri(),
            data={"client_id": settings.MONAI_LABEL_AUTH_CLIENT_ID, **sent},
            timeout=settings.MONAI_LABEL_AUTH_TIMEOUT,
        )
        if answer.status_code in (400, 401):
            raise RefusedError(401, "The name or the password of the user is wrong.")
        answer.raise_for_status()
        return answer.json()
    except requests.RequestException as error:
        raise _no_answer() from error


def _inside(payload: Any, key: str) -> Any:
    return payload.get(key) if isinstance(payload, dict) else None


def _no_answer() -> RefusedError:
    return RefusedError(502, "The sign-in server does not answer as it should; its operator has to look.")
