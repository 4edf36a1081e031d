"""Malformed requests for every route of the server: valid ones with a few of their parts replaced by nonsense."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tarfile
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import nibabel
import numpy as np

TASKS = ("causal_sam", "causal_sam_multilabel", "causal_sam_scribbles", "causal_sam_organs", "causal_sam_note")
SHAPE = (24, 20, 6)
AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])
MIB = 2**20

File = tuple[str, bytes]


@dataclass(frozen=True)
class Attempt:
    """One request.

    Attributes:
        number: its place in the sequence.
        method: of HTTP.
        target: path and query as they go over the wire.
        headers: of the request.
        body: its content.
        about: what was replaced, for the report of a failure.
    """

    number: int
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    about: str


@dataclass
class Draft:
    """A valid request that is about to be spoilt.

    Attributes:
        method: of HTTP.
        path: its segments.
        query: names and values.
        form: names and texts of form fields.
        params: JSON object as name -> JSON text, sent as the field or body that ``params_in`` names.
        params_in: name of a form field, "body" for a JSON body, "" for nothing.
        files: field, file name, content.
        headers: of the request.
    """

    method: str
    path: list[str]
    query: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    params_in: str = ""
    files: list[tuple[str, str, bytes]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


def malformed_requests(seed: int, count: int, mark: str, outside: str) -> Iterator[Attempt]:
    """Generate requests; the same arguments give the same ones.

    Args:
        seed: of the choices.
        count: how many.
        mark: is in the name of each file that a request tries to write, so that it can be searched for.
        outside: a folder that no request may touch.
    """
    rng = random.Random(seed)
    texts, files = _texts(mark, outside), _files(rng, mark, outside)
    for number in range(count):
        draft = rng.choice(_BASES if rng.random() < 0.5 else _INFERENCES)(rng)
        done = [rng.choice(_spoilers(draft))(draft, rng, texts, files) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        yield _attempt(number, draft, rng, "; ".join(done))


def contradictory_requests(seed: int, count: int) -> Iterator[Attempt]:
    """Generate well-formed requests for two images that, sent at the same time, take away what the others use."""
    rng = random.Random(seed)
    for number in range(count):
        image = rng.choice(("shared1", "shared2"))
        draft = rng.choice(_INFERENCES[:5])(rng) if rng.random() < 0.4 else rng.choice(_CHANGES)(image)
        if "image" in draft.query:
            draft.query["image"] = image
        yield _attempt(number, draft, rng, "")


def _attempt(number: int, draft: Draft, rng: random.Random, about: str) -> Attempt:
    headers, body = _encoded(draft, rng)
    target = "/" + "/".join(draft.path)
    if draft.query:
        target += "?" + "&".join(f"{quote(k, safe='')}={_percent(v)}" for k, v in draft.query.items())
    return Attempt(number, draft.method, target, headers, body, about)


def nifti(array: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> bytes:
    """An image of `SHAPE`, or any array, as the bytes of a .nii.gz file."""
    if array is None:
        i, j, _ = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
        array = np.where((i - 12) ** 2 + (j - 10) ** 2 < 36, 150, -50).astype(np.int16)
    return gzip.compress(nibabel.Nifti1Image(array, affine).to_bytes(), mtime=0)


def label() -> bytes:
    """A label map of such an image."""
    array = np.zeros(SHAPE, np.uint8)
    array[8:16, 6:14, 2:4] = 1
    return nifti(array)


# --- valid requests ------------------------------------------------------------------------------------------------

_CLICK = {"label": '"liver"', "foreground": "[[12,10,3]]", "background": "[]", "client_id": '"fuzz"'}
_OPTIONS = {
    "reset": "false",
    "plane": '"axial"',
    "extent": '"slice"',
    "frame": "0",
    "local": "true",
    "slice": "3",
    "roi": "[4,18,4,16,2,3]",
    "lasso": "[[4,4,3],[18,4,3],[12,16,3]]",
    "result_extension": '".nrrd"',
    "result_dtype": '"uint8"',
    "result_compress": "false",
    "restore_label_idx": "false",
    "reset_state": "true",
    "save_label": "true",
    "label_tag": '"original"',
    "label_info": '[{"name":"liver","idx":1}]',
    "device": '"cpu"',
    "timeout": "60",
}


def _infer(task: str, params: Mapping[str, str], rng: random.Random) -> Draft:
    options = {key: value for key, value in _OPTIONS.items() if rng.random() < 0.2}
    output = rng.choice(("json", "image", "all"))
    return Draft("POST", ["infer", task], {"image": "ct", "output": output}, {}, {**params, **options}, "params")


def _scribbles(rng: random.Random) -> Draft:
    array = np.zeros(SHAPE, np.uint8)
    array[8:16, 10, 3] = 4
    draft = _infer("causal_sam_scribbles", {"selected_label_name": '"liver"', "client_id": '"fuzz"'}, rng)
    draft.files = [("label", "label.nii.gz", nifti(array))]
    return draft


_NOTES = ("the liver is too large on the left", "remove the liver on slices 2 to 3", "grow the liver by 3 mm")
_INFERENCES = (
    lambda rng: _infer("causal_sam", _CLICK, rng),
    lambda rng: _infer("causal_sam_multilabel", {"liver": "[[12,10,3]]", "spleen": "[]", "label": '"liver"'}, rng),
    _scribbles,
    lambda rng: _infer("causal_sam_organs", {"organs": '"liver"'}, rng),
    lambda rng: _infer(
        "causal_sam_note",
        {"note": json.dumps(rng.choice(_NOTES)), "undo": "false", "preview": "true", "repeat": "true"},
        rng,
    ),
    lambda rng: Draft(
        "POST", ["infer", "causal_sam"], {"output": "json"}, {}, dict(_CLICK), "params", [("file", "x.nii.gz", nifti())]
    ),
)
_INFO = '{"label_info":[{"name":"liver","idx":1}]}'
_BASES = (
    lambda rng: Draft("GET", ["info", ""]),
    lambda rng: Draft("GET", ["datastore", ""], {"output": rng.choice(("all", "stats", "train"))}),
    lambda rng: Draft("PUT", ["datastore", "image"], {"image": "new"}, {"params": "{}"}, files=[_file("file")]),
    lambda rng: Draft("PUT", ["datastore", ""], {"image": "new"}, {"params": "{}"}, files=[_file("file")]),
    lambda rng: Draft("GET", ["datastore", "image"], {"image": "ct"}),
    lambda rng: Draft("HEAD", ["datastore", "image"], {"image": "ct", "check_sum": "SHA256:00"}),
    lambda rng: Draft("DELETE", ["datastore", rng.choice(("image", ""))], {"id": "nobody"}),
    lambda rng: Draft("GET", ["datastore", "image", "info"], {"image": "ct"}),
    lambda rng: Draft("PUT", ["datastore", "image", "info"], {"image": "ct"}, {"info": '{"patient":"p1"}'}),
    lambda rng: Draft(
        "PUT", ["datastore", "label"], {"image": "ct", "tag": "final"}, {"params": _INFO}, files=[_file("label")]
    ),
    lambda rng: Draft(
        "PUT", ["datastore", "label"], {"image": "ct"}, {}, {"label_info": "[]"}, "params", [_file("label")]
    ),
    lambda rng: Draft("GET", ["datastore", "label"], {"label": "ct", "tag": "final"}),
    lambda rng: Draft("HEAD", ["datastore", "label"], {"image": "ct", "tag": "final"}),
    lambda rng: Draft("DELETE", ["datastore", "label"], {"id": "nobody", "tag": "final"}),
    lambda rng: Draft("GET", ["datastore", "label", "info"], {"label": "ct", "tag": "final"}),
    lambda rng: Draft("PUT", ["datastore", "label", "info"], {"label": "ct", "tag": "final"}, {"info": _INFO}),
    lambda rng: Draft("PUT", ["datastore", "updatelabelinfo"], {"label": "ct", "tag": "final"}, {"params": _INFO}),
    lambda rng: Draft("GET", ["datastore", "dataset"], {"limit_cases": "1"}),
    lambda rng: Draft("PUT", ["session", ""], {"uncompress": "true", "expiry": "60"}, files=[_file("files")]),
    lambda rng: Draft("PUT", ["session", ""], {}, files=[_file("files"), _file("files")]),
    lambda rng: Draft(rng.choice(("GET", "DELETE")), ["session", str(uuid.UUID(int=7))], {"image": "true"}),
    lambda rng: Draft("POST", ["train", "adapters"], {}, {}, {"minutes": "0.01", "max_epochs": "1"}, "body"),
    lambda rng: Draft("POST", ["train", ""], {}, {}, {"adapters": '{"minutes":0.01}'}, "body"),
    lambda rng: Draft(rng.choice(("GET", "DELETE")), ["train", ""], {"check_if_running": "true"}),
    lambda rng: Draft("POST", ["batch", "infer", "causal_sam_organs"], {"images": "all"}, {}, _batch(), "body"),
    lambda rng: Draft(rng.choice(("GET", "DELETE")), ["batch", "infer"], {"all": "true"}),
    lambda rng: Draft("POST", ["scoring", "dice"], {"run_sync": "true"}, {}, {"y": '"final"'}, "body"),
    lambda rng: Draft("POST", ["scoring", ""], {}, {}, {"dice": "{}"}, "body"),
    lambda rng: Draft(rng.choice(("GET", "DELETE")), ["scoring", ""], {"all": "true"}),
    lambda rng: Draft(
        "POST",
        ["activelearning", rng.choice(("style_aware", "random", "first"))],
        {},
        {},
        {"client_id": '"fuzz"'},
        "body",
    ),
    lambda rng: Draft(
        rng.choice(("GET", "POST")), ["proxy", "dicom", rng.choice(("wado", "qido", "stow")), "studies"], {"limit": "1"}
    ),
    lambda rng: Draft("GET", ["proxy", "dicom", "studies"]),
    lambda rng: Draft("GET", ["logs", ""], {"lines": "10", "html": "false", "refresh": "3"}),
    lambda rng: Draft("GET", ["logs", "gpu"]),
    lambda rng: Draft(rng.choice(("GET", "DELETE")), ["model", "causal_sam"]),
    lambda rng: Draft("PUT", ["model", "adapters"], files=[("file", "weights.pt", b"junk")]),
    lambda rng: Draft("GET", ["model", "info", "causal_sam"]),
    lambda rng: Draft("POST", ["infer", "wsi_v2", "causal_sam"], {"image": "ct"}, {"wsi": '{"level":0}'}),
    lambda rng: Draft("POST", ["infer", "wsi", "causal_sam"], {"image": "ct"}, {}, {"level": "0"}, "body"),
    lambda rng: Draft("GET", ["ohif", rng.choice(("index.html", "assets", "app-config.js"))]),
    lambda rng: Draft("GET", ["static", "favicon.ico"]),
    lambda rng: Draft(rng.choice(("GET", "POST")), [rng.choice(("", "docs", "openapi.json", "reload", "auth"))]),
)


def _file(name: str) -> tuple[str, str, bytes]:
    return name, "label.nii.gz" if name == "label" else "image.nii.gz", label() if name == "label" else nifti()


def _batch() -> dict[str, str]:
    return {"save_label": "true", "label_tag": '"original"', "max_workers": "1", "multi_gpu": "false"}


_CHANGES = (
    *[lambda image: Draft("PUT", ["datastore", "image"], {"image": image}, {"params": "{}"}, files=[_file("file")])]
    * 3,
    lambda image: Draft("DELETE", ["datastore", "image"], {"id": image}),
    *[
        lambda image: Draft(
            "PUT", ["datastore", "label"], {"image": image, "tag": "final"}, {"params": _INFO}, files=[_file("label")]
        )
    ]
    * 2,
    lambda image: Draft("DELETE", ["datastore", "label"], {"id": image, "tag": "final"}),
    lambda image: Draft("PUT", ["datastore", "label", "info"], {"label": image, "tag": "final"}, {"info": _INFO}),
    lambda image: Draft("PUT", ["datastore", "image", "info"], {"image": image}, {"info": '{"patient":"p1"}'}),
    lambda image: Draft("GET", ["datastore", "image"], {"image": image}),
    lambda image: Draft("GET", ["datastore", "label"], {"label": image, "tag": "final"}),
    lambda image: Draft("GET", ["datastore", "label", "info"], {"label": image, "tag": "final"}),
    lambda image: Draft("GET", ["datastore", ""], {"output": "all"}),
    lambda image: Draft("GET", ["datastore", "dataset"]),
    lambda image: Draft("POST", ["activelearning", "style_aware"], {}, {}, {"client_id": f'"{image}"'}, "body"),
    lambda image: Draft("POST", ["scoring", "dice"], {"run_sync": "true"}, {}, {}, "body"),
)


# --- what is put into them -----------------------------------------------------------------------------------------


def _texts(mark: str, outside: str) -> tuple[str, ...]:
    return (
        f"../{mark}",
        f"../../../../../../tmp/{mark}",
        f"/tmp/{mark}",
        f"/{mark}",
        f"{outside}/{mark}",
        outside,
        f"..\\..\\{mark}",
        f"labels/../../{mark}",
        f"%2e%2e%2f{mark}",
        f"..%c0%af{mark}",
        f"{mark}\x00.nii.gz",
        f"{mark}\r\nSet-Cookie: a=b",
        f"C:\\{mark}",
        f"file://{outside}/{mark}",
        f"http://127.0.0.1:1/{mark}",
        f"$(touch /tmp/{mark})",
        f"`touch /tmp/{mark}`; touch /tmp/{mark}",
        f"~root/{mark}",
        "/etc/passwd",
        "/",
        ".",
        "..",
        "...",
        "",
        " ",
        "\n",
        "ct ",
        "CT",
        "ct/",
        "ct.nii.gz",
        "labels",
        "datastore_v2",
        ".lock",
        "con",
        "nul.nii.gz",
        "\ud800",
        "\udfff\ud800",
        "\u202egnp.exe",
        "e\u0301\u200b",
        "\ufeff",
        "💥" * 60,
        "x" * 300,
        "x" * 5000,
        "9" * 5000,
        "9" * 25,
        "1e400",
        "-1",
        "NaN",
        "null",
        "true",
        "{{7*7}}${7*7}",
        "<script>alert(1)</script>",
        "' OR 1=1 --",
        "result_1",
        "segment",
        "background",
        "foreground",
        "unnamed",
    )


_JSON = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "-1", "0", "1.5", "1e300", "1e-320", "true", "null", '""'),
    *("[]", "{}", "[[]]", "[null]", "[{}]", "[[1,2]]", "[[1,2,3,4]]", '[["a","b","c"]]', "[[1e300,1e300,1e300]]"),
    *("[[NaN,1,1]]", "[[true,false,true]]", "[[-1,-1,-1]]", "[[12.5,10.5,3.5]]", "[[[12,10,3]]]", '{"a":{"b":[1]}}'),
    *('"\\ud800"', '"\\u0000"', '"x\\ud800\\udc00\\udfff"', '["\\ud800"]', '{"\\ud800":1}', "[1,1,1,1,1,1]"),
    *("[5,1,5,1,5,1]", "[NaN,1,1,1,1,1]", "[1e30,1e30,1e30,1e30,1e30,1e30]", '["0","1","2","3","4","5"]'),
    "1" + "0" * 400,
    "-" + "9" * 5000,
    "[[" + "9" * 400 + ",1,1]]",
    "[" * 5000 + "]" * 5000,
    '{"a":' * 3000 + "1" + "}" * 3000,
    "[" + ",".join(["[12,10,3]"] * 20_000) + "]",
    "[" + ",".join(["1"] * 200_000) + "]",
    json.dumps("x" * 100_000),
    json.dumps("liver " * 4000),
    '[{"name":"liver","idx":1},{"name":"liver","idx":1}]',
    '[{"name":"liver","idx":"1"},{"name":"spleen","idx":1}]',
    '[{"name":"result_1","idx":' + "9" * 5000 + "}]",
    '[{"name":null,"idx":null}]',
    '[{"name":"\\ud800","idx":1}]',
    '{"result_1":1}',
)
_KEYS = (
    *("image", "model", "session", "session_id", "bundle_path", "PYTHONPATH", "gpus", "device", "label_tag"),
    *("causal_sam_client", "causal_sam_image_id", "causal_sam_connection", "images", "strategy", "method", "path"),
    *("__class__", "__proto__", "", "save_label", "result_extension", "foreground", "background", "roi", "note"),
    *("label", "label_info", "label_names", "client_id", "timeout", "max_workers", "liver", "spleen", "x" * 5000),
)
_BODIES = (
    *(b"", b"null", b"[]", b'"x"', b"1", b"{", b'{"a":1}}', b"\xff\xfe\x00", b"\xef\xbb\xbf{}", b"not json", b"\x00"),
    *(b"NaN", b'{"a":1,"a":2}', b"{'a': 1}", b'{"note": "\xff"}', b"[" * 100_000, b'{"a":' * 50_000),
    '{"a":1}'.encode("utf-16"),
    b"{" + b" " * (3 * MIB) + b"}",
    b'--x\r\nContent-Disposition: form-data; name="params"\r\n\r\n{}\r\n',
)
_CONTENT_TYPES = (
    *("application/json", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "x/y", ""),
    *("application/x-www-form-urlencoded", "application/json; charset=utf-16", "multipart/form-data; boundary=x"),
)
_HEADERS = (
    *(("Origin", "http://evil.example"), ("Origin", "null"), ("Range", "bytes=9-1"), ("Range", "bytes=x")),
    *(("Range", "bytes=" + "0-0," * 500 + "0-0"), ("Authorization", "Bearer x"), ("Cookie", "a=" + "b" * 4000)),
    *(("Host", "evil.example"), ("Host", ""), ("X-Forwarded-For", "' OR 1"), ("If-None-Match", "\x80")),
    *(("Accept", "image/\xff"), ("Content-Encoding", "gzip"), ("Sec-Fetch-Site", "cross-site")),
)


def _files(rng: random.Random, mark: str, outside: str) -> tuple[File, ...]:
    image, whole = nifti(), gzip.decompress(nifti())
    nan = np.full(SHAPE, np.nan, np.float32)

    def header(offset: int, form: str, *values: float) -> bytes:
        changed = bytearray(whole)
        struct.pack_into(form, changed, offset, *values)
        return bytes(changed)

    def archive(name: str, link: str = "") -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            member = tarfile.TarInfo(name)
            if link:
                member.type, member.linkname = tarfile.SYMTYPE, link
            else:
                member.size = 4
            tar.addfile(member, None if link else io.BytesIO(b"evil"))
        return out.getvalue()

    def zipped(name: str, content: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, content)
        return out.getvalue()

    sizes = " ".join(map(str, SHAPE))
    nrrd = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {sizes}\nencoding: raw\nendian: little\n"
    mhd = f"ObjectType = Image\nNDims = 3\nDimSize = {sizes}\nElementType = MET_SHORT\nElementDataFile = "
    return (
        ("empty.nii.gz", b""),
        ("junk.nii.gz", rng.randbytes(5)),
        ("junk.nii", rng.randbytes(400)),
        ("cut.nii.gz", image[: len(image) // 2]),
        ("tail.nii.gz", image + b"more"),
        ("plain.nii.gz", whole),
        ("packed.nii", image),
        ("bomb.nii.gz", gzip.compress(whole[:352] + bytes(64 * MIB), mtime=0)),
        ("dims.nii", header(40, "<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1)),
        ("negative.nii", header(40, "<8h", 3, -24, 20, 6, 1, 1, 1, 1)),
        ("none.nii", header(40, "<8h", 0, 0, 0, 0, 0, 0, 0, 0)),
        ("many.nii", header(40, "<8h", 7, 24, 20, 6, 2, 2, 2, 2)),
        ("slope.nii", header(112, "<2f", float("nan"), float("inf"))),
        ("offset.nii", header(108, "<f", -1e30)),
        ("type.nii", header(70, "<2h", 1, 1)),
        ("nan.nii.gz", nifti(nan)),
        ("complex.nii.gz", nifti(nan.astype(np.complex64))),
        ("four.nii.gz", nifti(np.zeros((*SHAPE, 3), np.uint8))),
        ("small.nii.gz", nifti(np.ones((2, 2, 2), np.uint8))),
        ("float.nii.gz", nifti(np.full(SHAPE, 0.5, np.float32))),
        ("below.nii.gz", nifti(np.full(SHAPE, -3, np.int16))),
        ("flat.nii", header(280, "<12f", *[0.0] * 12)),
        ("askew.nii", header(280, "<12f", *[float("nan")] * 12)),
        ("else.nii.gz", nifti(np.ones(SHAPE, np.uint8), np.diag([3.0, 1.0, 1.0, 1.0]))),
        ("label.bin", bytes(7)),
        ("ones.bin", b"\x01" * int(np.prod(SHAPE))),
        ("away.nrrd", f"{nrrd}data file: /etc/passwd\n\n".encode()),
        ("away.nhdr", f"{nrrd}data file: {outside}/kept.raw\n\n".encode()),
        ("list.nhdr", f"{nrrd}data file: LIST\n{outside}/kept.raw\n\n".encode()),
        ("huge.nrrd", nrrd.replace(sizes, "99999 99999 99999").encode() + b"\n1234"),
        ("away.mhd", f"{mhd}/etc/passwd\n".encode()),
        ("near.mha", f"{mhd}{outside}/kept.raw\n".encode()),
        ("up.tar.gz", archive(f"../{mark}")),
        ("root.tar.gz", archive(f"/tmp/{mark}")),
        ("link.tar.gz", archive("link.nii.gz", f"{outside}/kept.raw")),
        ("meta.tar.gz", archive("meta.info")),
        ("up.zip", zipped(f"../../{mark}", b"evil")),
        ("bomb.zip", zipped("zeros.nii", bytes(64 * MIB))),
        ("huge.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">2I5B", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)),
        ("junk.dcm", bytes(128) + b"DICM" + rng.randbytes(60)),
        ("junk.jpg", b"\xff\xd8\xff\xe0" + rng.randbytes(60)),
        ("junk.tif", b"II*\0\x08\0\0\0\xff\xff" + rng.randbytes(60)),
        ("script.sh", f"#!/bin/sh\ntouch /tmp/{mark}\n".encode()),
        ("noname", image),
        ("meta.info", json.dumps({"name": mark, "path": outside, "image": f"{outside}/kept.raw"}).encode()),
    )


# --- how they are put in -------------------------------------------------------------------------------------------


def _spoilers(draft: Draft) -> Sequence:
    found = [_spoil_path, _spoil_header, _add_query, _spoil_method]
    if draft.query:
        found += [_spoil_query] * 4
    if draft.form:
        found += [_spoil_form] * 4
    if draft.params:
        found += [_spoil_param] * 10 + [_add_param] * 4 + [_spoil_body]
    if draft.files:
        found += [_spoil_file] * 6 + [_spoil_file_name] * 4
    return found


def _spoil_path(draft: Draft, rng: random.Random, texts: Sequence[str], files: Sequence[File]) -> str:
    text = rng.choice([t for t in texts if t])
    at = rng.randrange(1, len(draft.path) + 1)
    draft.path[at - (at == len(draft.path)) :] = [_percent(text) if rng.random() < 0.5 else _raw(text)]
    return f"path {text[:60]!a}"


def _spoil_query(draft: Draft, rng: random.Random, texts: Sequence[str], files: Sequence[File]) -> str:
    name, text = rng.choice(list(draft.query)), rng.choice(texts)
    draft.query[name] = text
    return f"query {name}={text[:60]!a}"


def _add_query(draft: Draft, rng: random.Random, texts: Sequence[str], files: Sequence[File]) -> str:
    name = rng.choice(("image", "session_id", "output", "tag", "label", "run_sync", "enqueue", "lines", "id", "images"))
    draft.query[name] = text = rng.choice(texts)
    return f"query {name}={text[:60]!a} added"


def _spoil_form(draft: Draft, rng: random.Random, texts: Sequence[str], files: Sequence[File]) -> str:
    name = rng.choice(list(draft.form))
    draft.form[name] = text = rng.choice((*_JSON, *texts[-20:], f'{{"label_info":{rng.choice(_JSON)}}}'))
    return f"form {name}={text[:60]!a}"


def _spoil_param(draft: Draft, rng: random.Random, texts: Sequence[str], files: Sequence[File]) -> str:
    name = rng.choice(list(draft.params))
    draft.params[name] = text = rng.choice((*_JSON, json.dumps(rng.choice(texts)), json.dumps(rng.choice(texts))))
    return f"params {name}={text[:60]!a}"


def _add_param(draft: Draft, rng: random.Random, texts: Sequence[str], files: Sequence[File]) -> str:
    name, text = rng.choice(_KEYS), rng.choice((*_JSON, json.dumps(rng.choice(texts)), json.dumps(rng.choice(texts))))
    draft.params[name] = text
    return f"params {name[:30]}={text[:60]!a} added"


def _spoil_body(draft: Draft, rng: random.Random, texts: Sequence[str], files: Sequence[File]) -> str:
    body = rng.choice(_BODIES)
    if draft.params_in == "body" or rng.random() < 0.5:
        draft.headers["\0body"] = body.decode("latin-1")
    else:
        draft.form["params"], draft.params_in = body.decode("latin-1"), ""
    return f"body {body[:60]!r}"


def _spoil_file(draft: Draft, rng: random.Random, texts: Sequence[str], files: Sequence[File]) -> str:
    at, (name, content) = rng.randrange(len(draft.files)), rng.choice(files)
    draft.files[at] = (draft.files[at][0], name, content)
    return f"file {name}"


def _spoil_file_name(draft: Draft, rng: random.Random, texts: Sequence[str], files: Sequence[File]) -> str:
    at, text = rng.randrange(len(draft.files)), rng.choice(texts)
    if rng.random() < 0.5:
        text += ".nii.gz"
    draft.files[at] = (draft.files[at][0], text, draft.files[at][2])
    return f"file name {text[:60]!a}"


def _spoil_header(draft: Draft, rng: random.Random, texts: Sequence[str], files: Sequence[File]) -> str:
    if (draft.params_in or draft.form or draft.files) and rng.random() < 0.5:
        draft.headers["Content-Type"] = kind = rng.choice(_CONTENT_TYPES)
        return f"content type {kind!r}"
    name, value = rng.choice(_HEADERS)
    draft.headers[name] = value
    return f"header {name}: {value[:40]!a}"


def _spoil_method(draft: Draft, rng: random.Random, texts: Sequence[str], files: Sequence[File]) -> str:
    draft.method = rng.choice(("GET", "POST", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "QUERY"))
    return f"method {draft.method}"


# --- over the wire -------------------------------------------------------------------------------------------------


def _percent(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def _raw(text: str) -> str:
    """The text with only those characters encoded that no request line may have."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="/\\%.:;$`(){}<>'=,*~!@+&|^\"")


def _encoded(draft: Draft, rng: random.Random) -> tuple[dict[str, str], bytes]:
    headers = dict(draft.headers)
    instead = headers.pop("\0body", None)
    params = "{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in draft.params.items()) + "}"
    form = dict(draft.form)
    kind, body = None, b""
    if draft.params_in == "body":
        kind, body = "application/json", params.encode()
    elif draft.params_in:
        form[draft.params_in] = params
    if form or draft.files:
        kind, body = _multipart(form, draft.files, f"{rng.getrandbits(64):016x}")
    if instead is not None:
        body = instead.encode("latin-1")
    if kind and not headers.get("Content-Type"):
        headers.setdefault("Content-Type", kind)
    return headers, body


def _multipart(form: Mapping[str, str], files: Sequence[tuple[str, str, bytes]], boundary: str) -> tuple[str, bytes]:
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + text.encode("utf-8", "surrogatepass")
        for name, text in form.items()
    ]
    for name, file_name, content in files:
        shown = file_name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        head = f'Content-Disposition: form-data; name="{name}"; filename="{shown}"\r\n'.encode("utf-8", "surrogatepass")
        parts.append(head + b"Content-Type: application/octet-stream\r\n\r\n" + content)
    line = f"--{boundary}".encode()
    body = b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--\r\n"
    return f"multipart/form-data; boundary={boundary}", body
