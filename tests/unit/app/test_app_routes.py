"""The table of routes: no coroutine of MONAI Label is left on the event loop, and none lost its role."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from monailabel.endpoints import (
    activelearning,
    batch_infer,
    datastore,
    infer,
    info,
    login,
    logs,
    model,
    ohif,
    proxy,
    scoring,
    session,
    train,
    wsi_infer,
)
from monailabel.endpoints.user.auth import RBAC

from serving.requests import routes
from serving.requests.errors import install_error_handlers
from serving.requests.viewer import install_first_page

MODULES = (
    *(activelearning, batch_infer, datastore, infer, info, login, logs, model, ohif, proxy, scoring, session, train),
    wsi_infer,
)
BAD_JSON = ("{", "[1]", '{"a": NaN}', '{"a": 1e999}', '"\\ud800"', "[" * 5000, '{"a": ' + "9" * 5000 + "}")
WITHOUT_ROLE = {"/auth/", "/auth/token", "/auth/token/valid"}


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    for module in MODULES:
        app.include_router(module.router)
    install_error_handlers(app)
    routes.install_routes(app)
    return app


def all_routes(router: APIRouter) -> Iterator[APIRoute]:
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from all_routes(route.original_router)


def test_every_endpoint_is_ours_and_keeps_its_role(app: FastAPI) -> None:
    before = {(method, route.path) for module in MODULES for route in module.router.routes for method in route.methods}
    after = list(all_routes(app.router))
    assert {(method, route.path) for route in after for method in route.methods} == before
    for route in after:
        assert route.endpoint.__module__.startswith("serving."), route.path
        roles = [each.call for each in route.dependant.dependencies if isinstance(each.call, RBAC)]
        assert len(roles) == (0 if route.path in WITHOUT_ROLE else 1), route.path


def test_roles_are_those_of_monai_label(app: FastAPI) -> None:
    def role(route: APIRoute) -> object:
        return next((each.call.roles for each in route.dependant.dependencies if isinstance(each.call, RBAC)), None)

    ours = {(route.path, *route.methods): role(route) for route in all_routes(app.router)}
    for module in MODULES:
        for route in module.router.routes:
            for method in route.methods:
                assert ours[route.path, method] == role(route), (method, route.path)


def test_a_route_that_monai_label_does_not_have_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LookupError, match="/infer/"):
        routes.install_routes(FastAPI())


def test_the_first_page_leads_to_ours_and_loads_nothing_from_other_servers() -> None:
    app = FastAPI(docs_url=None)

    @app.get("/", include_in_schema=False)
    def page() -> str:
        return "<script src='https://cdn.example.org/swagger.js'></script>"

    install_first_page(app)
    with TestClient(app) as client:
        answer = client.get("/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"], answer.text) == (307, "/causal-sam/", "")


def test_slow_work_of_one_family_holds_nobody_else(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests than there are threads of the family wait for an archive, scoring or a training."""
    may_end, began = threading.Event(), threading.Semaphore(0)

    def slow(*arguments: object, **named: object) -> dict[str, bool]:
        began.release()
        assert may_end.wait(60)
        return {"done": True}

    monkeypatch.setattr(datastore, "datastore", slow)
    monkeypatch.setattr(info, "app_info", lambda: {"answers": True})
    with TestClient(app) as client, ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(client.get, "/datastore/") for _ in range(routes.THREADS_PER_FAMILY + 8)]
        for _ in range(routes.THREADS_PER_FAMILY):
            assert began.acquire(timeout=60)
        assert client.get("/info/").json() == {"answers": True}
        assert not any(answer.done() for answer in asked)
        may_end.set()
        assert [answer.result().json() for answer in asked] == [{"done": True}] * len(asked)


def test_an_endpoint_that_waits_is_not_cut_off_silently() -> None:
    async def waits() -> None:
        await asyncio.sleep(0)

    # A browser of other tests keeps the event loop of this thread.
    with ThreadPoolExecutor(1) as thread, pytest.raises(TypeError, match="waits"):
        thread.submit(anyio.run, routes.in_thread(waits, anyio.CapacityLimiter(1))).result()


def test_json_fields_and_file_names_are_checked_for_every_route(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("add_image", "save_label", "update_image_info", "update_label_info"):
        monkeypatch.setattr(datastore, name, lambda *arguments: {"was": "called"})
    requests = (
        ("/datastore/", {"image": "a"}, "params", "file"),
        ("/datastore/image", {"image": "a"}, "params", "file"),
        ("/datastore/image/info", {"image": "a"}, "info", None),
        ("/datastore/label", {"image": "a"}, "params", "label"),
        ("/datastore/label/info", {"label": "a", "tag": "final"}, "info", None),
        ("/datastore/updatelabelinfo", {"label": "a", "tag": "final"}, "params", None),
    )
    with TestClient(app) as client:
        for path, query, field, upload in requests:
            for text in (
                "{",
                "[1]",
                '{"a": NaN}',
                '{"a": 1e999}',
                '"\\ud800"',
                "[" * 5000,
                '{"a": ' + "9" * 5000 + "}",
            ):
                files = {upload: ("image.nii.gz", b"voxels")} if upload else None
                response = client.put(path, params=query, files=files, data={field: text})
                assert response.status_code == 422, (path, text[:20], response.text)
                assert response.json()["detail"].startswith(f"The form field {field} "), response.text
            if upload:
                for name in ("..", "a" * 300, "../../..", "x\u202e.nii", "/tmp/", "C:\\con"):
                    response = client.put(path, params=query, files={upload: (name, b"voxels")})
                    assert response.status_code == 422, (path, name)
                    assert "file name" in response.json()["detail"]
