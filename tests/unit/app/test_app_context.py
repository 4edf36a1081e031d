"""Requests that a context answers, which is scripted here: clicks in 3D, names on day one, images that are opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from scripted_app import LIVER, SPLEEN, App, write_image

from causal_sam.errors import InputError
from causal_sam.imaging.overlap import dice
from serving.data.images import volume_key
from serving.opened_images import prepare_opened

SECONDS = 60


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    (tmp_path / "studies").mkdir()
    return App(tmp_path / "studies", monkeypatch)


def test_a_click_is_answered_in_3d_by_the_context_which_learns_the_label(app: App) -> None:
    mask, answer = app.post(app.clicks, {"label": "liver", "foreground": [[22, 28, 4]], "background": []})
    assert dice(mask > 0, LIVER) > 0.85
    assert answer["labels"]["liver"]["updated_slices"] == [4]
    assert len(answer["labels"]["liver"]["followed_slices"]) >= 4
    assert [asked["name"] for asked in app.asked] == ["liver"]
    app.post(app.clicks, {"foreground": [[50, 28, 4]], "background": []})  # as OHIF sends it
    assert app.asked[-1]["name"] is None
    app.post(app.clicks, {"label": "liver", "foreground": [[22, 28, 4], [23, 28, 3]], "extent": "slice"})
    assert len(app.asked) == 2  # a slice alone needs no context


def test_names_are_found_on_day_one_and_the_answer_says_how_sure_it_is(app: App) -> None:
    mask, answer = app.post(app.organs, {})
    assert dice(mask == 1, LIVER) > 0.85
    assert dice(mask == 2, SPLEEN) > 0.85
    assert answer["by_context"] == ["liver", "spleen"]
    assert answer["version"] is None
    assert answer["labels"]["spleen"]["predicted_iou"] == 0.9
    assert "(90 % sure)" in answer["message"]
    assert "never learned, so left out: kidney" in answer["message"]
    with pytest.raises(InputError, match="not learned any label"):
        app.post(app.organs, {"organs": "kidney"})
    mask, _ = app.post(app.clicks, {"label": "spleen", "foreground": [], "background": [], "reset": True})
    assert dice(mask > 0, SPLEEN) < 0.1  # reset empties it
    mask, _ = app.post(app.clicks, {"label": "spleen", "foreground": [], "background": []})
    assert dice(mask > 0, SPLEEN) > 0.85


def test_an_image_that_a_client_opens_is_prepared_in_the_background(app: App) -> None:
    server = FastAPI()
    prepare_opened(server, "image")  # before the server has started
    server.state.opened_images = app.opened
    prepare_opened(server, "no such image")
    prepare_opened(server, "image")
    assert app.opened.wait(SECONDS)
    assert app.contexts.wait(SECONDS)
    volume = app.resources.volumes.get(next(iter(app.resources.volumes._volumes)))
    predictor = app.resources.predictors.for_volume(volume, "axial")
    assert predictor.context._masker.context.prepared == 1


def add_image(app: App, image_id: str) -> None:
    write_image(app.image.parent / f"{image_id}.nii.gz")
    app.store.refresh()


def prepared(app: App, image_id: str) -> bool:
    """Return True if the context of an image is prepared."""
    volume = app.resources.volumes.get(volume_key(app.image.parent / f"{image_id}.nii.gz"))
    return app.resources.predictors.for_volume(volume, "axial").context._masker.context.prepared == 1


def finish(app: App) -> None:
    assert app.opened.wait(SECONDS)
    assert app.resources.predictors.contexts().wait(SECONDS)


def test_the_next_image_is_prepared_after_the_one_that_was_opened(app: App) -> None:
    for name in ("next one", "another"):
        add_image(app, name)
    seen: list[bool] = []

    def choose_next() -> str:
        seen.append(prepared(app, "image"))
        return "next one"

    app.opened.add("image", choose_next)
    finish(app)
    assert seen == [True]
    assert prepared(app, "next one")
    assert not prepared(app, "another")
    app.opened.add("another", lambda: "another")
    finish(app)
    assert prepared(app, "another")


def test_the_next_image_is_left_alone_where_there_is_no_room_for_both(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_image(app, "next one")
    predictors = app.resources.predictors
    for where, what in (
        (predictors.contexts(), "holds_both"),
        (app.resources.volumes, "holds"),
        (predictors.base().cache, "holds"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, what, lambda *sizes: False)
            app.opened.add("image", lambda: "next one")
            finish(app)
        assert prepared(app, "image")
        assert not prepared(app, "next one")


def test_what_is_prepared_ahead_gives_way_to_an_image_that_is_opened(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("next one", "another"):
        add_image(app, name)
    contexts, left = app.resources.predictors.contexts(), []
    monkeypatch.setattr(contexts, "leave", lambda slices: left.append(slices.volume.affine[0, 3]))
    app.opened.add("image", lambda: "next one")
    finish(app)
    app.opened.add("another")
    finish(app)
    assert left == [len("next one.nii.gz")]
    assert prepared(app, "another")
