"""The page as it is built and described."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient

from serving.page.routes import STATIC, api_description, install_page

SOURCES = Path(__file__).resolve().parents[3] / "apps" / "causal_sam" / "page"


def test_the_types_of_the_page_are_those_of_the_routes() -> None:
    assert json.loads((SOURCES / "openapi.json").read_text()) == api_description(), "run `make page`"


def test_the_built_page_is_there_and_loads_nothing_from_elsewhere() -> None:
    app = FastAPI()
    install_page(app)
    with TestClient(app) as client:
        page = client.get("/causal-sam/")
        assert page.headers["content-type"].startswith("text/html")
        files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(files) >= 2
        for file in files:
            assert file.startswith(("./assets/", "data:")), file
            if file.startswith("./"):
                assert client.get(f"/causal-sam/{file[2:]}").status_code == 200
    assert sum(path.stat().st_size for path in STATIC.rglob("*")) < 1.5e6
