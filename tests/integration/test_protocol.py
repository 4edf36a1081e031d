"""The protocol over HTTP: rules, their check, carrying one out, and what an acceptance reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import requests

from causal_sam.imaging import PackedMask

from .server import REQUEST_SECONDS, Server

pytestmark = pytest.mark.integration

RULES = """# Ours
- The liver is one piece
- No holes in the right kidney
- Aorta down to the bifurcation
"""
CASE = "fresh6"


@pytest.fixture
def protocol(server: Server) -> Iterator[Path]:
    path = server.studies / "protocol.md"
    path.write_text(RULES)
    yield path
    path.unlink()


def ask(server: Server, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    url = f"{server.url}/causal-sam/api/{path}"
    answer = requests.request(method, url, params={"client_id": "protocol"}, json=body, timeout=REQUEST_SECONDS)
    assert answer.status_code == status, answer.text
    return answer.json()


def reports(server: Server) -> list[dict[str, Any]]:
    path = server.studies / "causal_sam_journal" / "protocol.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_rules_are_checked_carried_out_and_reported_when_a_label_is_accepted(server: Server, protocol: Path) -> None:
    listed = ask(server, "GET", "protocol")
    assert [rule["line"] for rule in listed["rules"]] == [2, 3, 4]
    shape = tuple(ask(server, "GET", f"cases/{CASE}/session")["shape"])
    liver = np.zeros(shape, bool)
    liver[4:12, 4:12, 2:5] = liver[18, 4:6, 2] = True
    painted = {"kind": "brush", "label": "liver", "painted": PackedMask.pack(liver).as_json()}
    before = ask(server, "POST", f"cases/{CASE}/prompts", painted)

    checked = ask(server, "POST", f"cases/{CASE}/protocol/check", {})
    assert [rule["status"] for rule in checked["rules"]] == ["fails", "no mask", "question"]
    assert "0 of 1 rule that concerns these masks hold" in checked["message"]
    assert 'How can "Aorta down to the bifurcation" be seen on a mask?' in checked["rules"][2]["question"]
    assert ask(server, "GET", f"cases/{CASE}/session")["steps"] == before["steps"]

    one = {"rule": checked["rules"][0]["rule"]}
    seen = ask(server, "POST", f"cases/{CASE}/protocol/preview", one)
    (sentence,) = seen["sentences"]
    assert sentence.startswith("keep only the largest component of the liver: \N{MINUS SIGN}")
    accepted = ask(server, "POST", f"cases/{CASE}/accept", {})
    assert "Accepted: liver. Protocol" in accepted["message"]
    assert "would change by +0.00 ml" in accepted["message"]
    (report,) = (each for each in reports(server) if each["image"] == CASE)
    assert (report["protocol"], report["rules"][0]["status"]) == (listed["protocol"], "fails")

    done = ask(server, "POST", f"cases/{CASE}/protocol/apply", {**one, "plan": seen["plan"]})
    (mask,) = (PackedMask.from_json(label["mask"]).unpack() for label in done["labels"])
    assert not mask[18].any()
    assert mask[4:12, 4:12, 2:5].all()
    notes = ask(server, "GET", f"cases/{CASE}/notes")
    assert notes[-1]["note"] == "The liver is one piece"
    refused = ask(server, "POST", f"cases/{CASE}/protocol/apply", one, status=422)
    assert refused["detail"].startswith('Nothing was done. Line 2, "The liver is one piece": liver: holds')
    gone = ask(server, "POST", f"cases/{CASE}/protocol/apply", {"rule": "0" * 12}, status=404)
    assert "no such rule any more" in gone["detail"]


def test_a_label_that_another_client_accepts_is_checked_too(server: Server, protocol: Path, tmp_path: Path) -> None:
    image = nibabel.load(server.studies / "ct.nii.gz")
    label = np.zeros(image.shape, np.uint8)
    label[4:12, 4:12, 2:5], label[7:9, 7:9, 3] = 3, 0
    path = tmp_path / "label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(label, image.affine), path)
    params = {"label_info": [{"name": "right kidney", "idx": 3}]}
    for tag in ("original", "final"):
        answer = requests.put(
            f"{server.url}/datastore/label",
            params={"image": "fresh7", "tag": tag},
            data={"params": json.dumps(params)},
            files={"label": path.open("rb")},
            timeout=REQUEST_SECONDS,
        ).json()
        assert ("protocol" in answer) == (tag == "final")
    assert [rule["status"] for rule in answer["protocol"]["rules"]] == ["no mask", "fails", "question"]
    assert "right kidney: would change by +" in answer["protocol"]["message"]
    assert reports(server)[-1]["image"] == "fresh7"


def test_a_protocol_that_cannot_be_read_is_said_and_hinders_nothing(server: Server, protocol: Path) -> None:
    protocol.write_bytes(b"- liver \xff")
    assert "UTF-8" in ask(server, "GET", "protocol", status=422)["detail"]
    ask(server, "GET", "cases/fresh8/session")
    shape = ask(server, "GET", "cases/fresh8/session")["shape"]
    painted = PackedMask.pack(np.indices(shape).sum(0) < 6).as_json()
    ask(server, "POST", "cases/fresh8/prompts", {"kind": "brush", "label": "spleen", "painted": painted})
    assert ask(server, "POST", "cases/fresh8/accept", {})["message"].startswith("Accepted: ")
