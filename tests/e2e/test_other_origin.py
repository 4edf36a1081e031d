"""A page of another origin in the user's browser reads nothing of the server and changes nothing on it."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import requests
from integration.server import Server, running_server
from malformed import label, nifti
from PIL import Image
from processes import free_port

from .conftest import CHROMIUM, CHROMIUM_OPTIONS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

SECRET = "secretpatient"
SECONDS = 60
# Names under which pages are served here that are not the server's: another port, address or name of this machine,
# and names that only a resolver of the attacker leads here.
NAMES = ("127.0.0.1", "localhost", "other.localhost", "127.0.0.2", "evil.example")
REBOUND = "rebound.example"

# Each attempt returns what the page could read, or throws. Opaque answers have no text.
ATTACK = """async (server) => {
  const read = {};
  const form = (fields) => {
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) body.append(name, ...[].concat(value));
    return body;
  };
  const attempt = async (name, act) => {
    const late = new Promise((done) => setTimeout(() => done(''), 10000));
    try { read[name] = String((await Promise.race([act(), late])) ?? ''); } catch (error) { read[name] = ''; }
  };
  const paths = ['/info/', '/logs/?lines=100&html=false', '/datastore/?output=all', '/openapi.json', '/docs', '/',
    '/datastore/image?image=secretpatient', '/datastore/label?label=secretpatient&tag=final', '/datastore/dataset',
    '/datastore/label/info?label=secretpatient&tag=final', '/proxy/dicom/studies', '/train/', '/ohif/index.html',
    '/static/favicon.ico'];
  for (const path of paths) {
    for (const mode of ['cors', 'no-cors']) {
      for (const credentials of ['include', 'omit']) {
        await attempt(`fetch ${mode} ${credentials} ${path}`, async () =>
          (await fetch(server + path, { mode, credentials })).text());
      }
    }
    await attempt(`xhr ${path}`, () => new Promise((done, fail) => {
      const request = new XMLHttpRequest();
      request.open('GET', server + path);
      request.withCredentials = true;
      request.onload = () => done(request.responseText);
      request.onerror = fail;
      request.send();
    }));
    await attempt(`script ${path}`, () => new Promise((done, fail) => {
      const script = document.createElement('script');
      script.onload = () => done('script ran');
      script.onerror = fail;
      script.src = server + path;
      document.head.append(script);
    }));
    await attempt(`frame ${path}`, () => new Promise((done) => {
      const frame = document.createElement('iframe');
      frame.onload = () => {
        try { done(frame.contentDocument.documentElement.outerHTML.slice(39)); } catch (error) { done(''); }
      };
      frame.src = server + path;
      document.body.append(frame);
    }));
  }
  await attempt('image', () => new Promise((done, fail) => {
    const image = new Image();
    image.onload = () => done(`${image.naturalWidth} x ${image.naturalHeight}`);
    image.onerror = fail;
    image.src = server + '/datastore/image?image=secretpicture';
  }));
  await attempt('socket', () => new Promise((done, fail) => {
    const socket = new WebSocket(server.replace('http', 'ws') + '/info/');
    socket.onopen = () => done('open');
    socket.onmessage = (message) => done(message.data);
    socket.onerror = fail;
  }));
  const file = new Blob([new Uint8Array(2880).fill(1)]);
  const changes = [
    ['POST', '/infer/causal_sam?image=secretpatient&output=json', form({ params: JSON.stringify(
      { label: 'liver', foreground: [[12, 10, 3]], save_label: true, label_tag: 'final' }) })],
    ['POST', '/train/adapters', '{"minutes": 0.01}'],
    ['POST', '/train/', '{}'],
    ['POST', '/batch/infer/causal_sam_organs', '{"images": "all"}'],
    ['POST', '/scoring/dice', '{}'],
    ['POST', '/activelearning/random', '{}'],
    ['PUT', '/datastore/label?image=secretpatient&tag=final', form({ params: '{}', label: [file, 'label.bin'] })],
    ['PUT', '/datastore/image?image=planted', form({ file: [file, 'planted.nii.gz'] })],
    ['PUT', '/datastore/label/info?label=secretpatient&tag=final', form({ info: '{"label_info": []}' })],
    ['PUT', '/session/', form({ files: [file, 'x.nii.gz'] })],
    ['DELETE', '/datastore/image?id=secretpatient', null],
    ['DELETE', '/datastore/label?id=secretpatient&tag=final', null],
    ['DELETE', '/train/', null],
    ['POST', '/reload', ''],
  ];
  for (const [method, path, body] of changes) {
    for (const mode of ['cors', 'no-cors']) {
      for (const type of [null, 'text/plain', 'application/json', 'application/x-www-form-urlencoded']) {
        if (type && typeof body !== 'string') continue;
        await attempt(`${method} ${mode} ${type} ${path}`, async () => (await fetch(server + path,
          { method, mode, body, credentials: 'include', headers: type ? { 'content-type': type } : {} })).text());
      }
    }
    if (method === 'POST') navigator.sendBeacon(server + path, body);
    if (method === 'POST' && typeof body !== 'string') navigator.sendBeacon(server + path, new Blob(['{}']));
  }
  return read;
}"""
POST_FORM = """([url, fields]) => {
  const form = document.createElement('form');
  form.method = 'POST';
  form.enctype = 'multipart/form-data';
  form.action = url;
  for (const [name, value] of Object.entries(fields)) {
    const input = document.createElement('input');
    input.name = name;
    input.value = value;
    form.append(input);
  }
  document.body.append(form);
  form.submit();
}"""
CLICK = {"label": "liver", "foreground": [[12, 10, 3]], "save_label": True, "label_tag": "final"}


@dataclass(frozen=True)
class Seen:
    """An answer that the browser got, opaque to the page or not."""

    url: str
    method: str
    status: int


class _Blank(http.server.BaseHTTPRequestHandler):
    """Answers everything with an empty page that may be of any origin."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>other</title><body>")

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def blank_pages(address: str) -> Iterator[int]:
    """Serve empty pages on a loopback address; yields the port."""
    with http.server.ThreadingHTTPServer((address, free_port()), _Blank) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            yield site.server_port
        finally:
            site.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def folder_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a folder with an image, its accepted label and a picture."""
    folder = tmp_path_factory.mktemp("origin")
    studies = folder / "studies"
    studies.mkdir()
    (studies / f"{SECRET}.nii.gz").write_bytes(nifti())
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(studies / "secretpicture.png")
    with running_server(studies, folder, {"labels": "liver"}) as server:
        files = {"params": (None, json.dumps({"label_info": [{"name": "liver", "idx": 1}]}))}
        files["label"] = ("label.nii.gz", label())
        query = {"image": SECRET, "tag": "final"}
        assert requests.put(f"{server.url}/datastore/label", params=query, files=files, timeout=SECONDS).ok
        yield server


@pytest.fixture(scope="module")
def misled_browser(browser: Browser) -> Iterator[Browser]:
    """A Chromium whose resolver leads names of the attacker to this machine."""
    rules = f"MAP evil.example 127.0.0.1, MAP {REBOUND} 127.0.0.1, MAP 127.0.0.2 127.0.0.2"
    options = [*CHROMIUM_OPTIONS, f"--host-resolver-rules={rules}"]
    misled = browser.browser_type.launch(executable_path=CHROMIUM, args=options)
    yield misled
    misled.close()


@contextmanager
def opened(browser: Browser, url: str) -> Iterator[tuple[Page, list[Seen]]]:
    """Open a page; yields it, and the list to which answers are added."""
    with browser.new_context() as context:
        seen: list[Seen] = []
        context.on("response", lambda got: seen.append(Seen(got.url, got.request.method, got.status)))
        page = context.new_page()
        page.goto(url)
        yield page, seen


def state(server: Server) -> dict[str, Any]:
    """All that a stranger must not change."""
    files = (path for path in sorted(server.studies.rglob("*")) if path.is_file())
    sessions = server.log.parent / "sessions"
    tasks = {
        path: requests.get(f"{server.url}/{path}", timeout=SECONDS).text
        for path in ("train/", "batch/infer", "scoring/")
    }
    return {
        "files": {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if _is_kept(path)},
        "objects": requests.get(f"{server.url}/datastore/?output=all", timeout=SECONDS).json()["objects"],
        "sessions": sorted(path.name for path in sessions.iterdir()) if sessions.is_dir() else [],
        "tasks": tasks,
    }


def _is_kept(path: Path) -> bool:
    """Whether only requests change the file; the server itself scores studies when nobody asks."""
    return "scores" not in path.name and path.suffix not in (".lock", ".db")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_of_another_origin_gets_nothing(misled_browser: Browser, folder_server: Server, name: str) -> None:
    server, before = folder_server.url, state(folder_server)
    address = name if name.startswith("127.") else "127.0.0.1"
    with blank_pages(address) as port, opened(misled_browser, f"http://{name}:{port}/") as (page, seen):
        read = page.evaluate(ATTACK, server)
        page.evaluate(
            POST_FORM, [f"{server}/infer/causal_sam?image={SECRET}&output=json", {"params": json.dumps(CLICK)}]
        )
        page.wait_for_load_state()
        navigated = page.content() if page.url.startswith(server) else ""
    got = {name: text for name, text in read.items() if text}
    assert len(read) > 100
    assert got == {}
    assert SECRET not in navigated
    assert not [each for each in seen if each.url.startswith(server) and each.method != "OPTIONS" and each.status < 400]
    assert state(folder_server) == before
    assert folder_server.post(CLICK | {"save_label": False}, image=SECRET).status_code == 200


def test_a_name_that_is_rebound_to_the_server_gets_nothing(misled_browser: Browser, folder_server: Server) -> None:
    """With DNS rebinding the attacker's page is of the server's origin, as the browser sees it."""
    before = state(folder_server)
    rebound = folder_server.url.replace("127.0.0.1", REBOUND)
    with opened(misled_browser, f"{rebound}/info/") as (page, seen):
        shown = page.content()
        read = page.evaluate(ATTACK, rebound)
    assert [each.status for each in seen if each.status < 400] == []
    assert SECRET not in shown + "".join(read.values())
    assert "Causal-SAM" not in shown + "".join(read.values())
    assert state(folder_server) == before


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost@evil", "[::1"]
)
def test_a_foreign_host_gets_nothing(folder_server: Server, host: str) -> None:
    for method, path in (("GET", "/info/"), ("GET", "/logs/"), ("POST", "/infer/causal_sam"), ("GET", "/ohif/")):
        answer = requests.request(method, folder_server.url + path, headers={"Host": host}, timeout=SECONDS)
        assert 400 <= answer.status_code < 500
        assert SECRET not in answer.text
        assert answer.headers.get("content-type") != "application/json" or answer.json()["detail"].endswith(".")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_loopback_names_are_let_in(folder_server: Server, host: str) -> None:
    port = folder_server.url.rsplit(":", 1)[1]
    for origin in (None, f"http://{host}:{port}"):
        headers = {"Host": f"{host}:{port}"} | ({"Origin": origin} if origin else {})
        assert requests.get(f"{folder_server.url}/info/", headers=headers, timeout=SECONDS).status_code == 200


def test_pages_of_the_server_itself_work(misled_browser: Browser, folder_server: Server) -> None:
    """The same requests from the server's own page succeed: the attack above fails for its origin alone."""
    with opened(misled_browser, f"{folder_server.url}/info/") as (page, _):
        read = page.evaluate("async (s) => (await fetch(s + '/datastore/?output=all')).text()", folder_server.url)
        status = page.evaluate(
            """async ([server, params]) => {
              const body = new FormData();
              body.append('params', params);
              const answer = await fetch(server + '/infer/causal_sam?image=secretpatient&output=json',
                { method: 'POST', body });
              return answer.status;
            }""",
            [folder_server.url, json.dumps(CLICK | {"save_label": False})],
        )
    assert SECRET in read
    assert status == 200
