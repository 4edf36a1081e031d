"""Clicks in 3D and names through the context of a volume, which is scripted here; the 2D model is the shipped one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scripted_context import ScriptedContext, scripted_contexts

from causal_sam.errors import InputError
from causal_sam.imaging import Volume
from causal_sam.imaging.overlap import dice
from causal_sam.prompting import InteractiveSession, Predictor
from causal_sam.prompting.borders import BorderDecoder
from causal_sam.prompting.contexts import ContextCache
from causal_sam.prompting.label_state import Source
from causal_sam.prompting.prompt_set import PromptSet
from causal_sam.prompting.prompts import Prompts
from causal_sam.prompting.shipped_context import shipped_contexts
from causal_sam.prompting.slots import OnSlice, ignore
from causal_sam.prompting.uncertainty import mask_uncertainty
from causal_sam.sam import load_model
from causal_sam.sam.embedding import Window, joined
from causal_sam.text import load_text_encoder
from causal_sam.volume.context import ContextModel

SHAPE = (96, 80, 12)
X, Y, Z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
ORGAN = ((X - 36) / 20) ** 2 + ((Y - 36) / 16) ** 2 + ((Z - 6) / 5) ** 2 < 1
CENTRE = (36, 36, 6)
LEAK = (np.abs(X - 64) < 10) & (np.abs(Y - 36) < 8) & (np.abs(Z - 6) < 4)
STRAY = (np.abs(X - 30) < 9) & (np.abs(Y - 66) < 8) & (np.abs(Z - 5) < 4)
SECONDS = 60


@pytest.fixture(scope="module")
def plain() -> Predictor:
    """A predictor without contexts, for an image with a bright organ and bright surroundings to leak into."""
    array = np.where(ORGAN | LEAK | STRAY, 130, 20) + np.random.default_rng(0).normal(0, 10, SHAPE)
    predictor = Predictor(load_model("compact", device="cpu"), prefetch_slices=0)
    return predictor.for_volume(Volume(array.astype(np.float32), np.diag([2.0, 2, 5, 1]), "CT"))


class Script:
    """Answers in the order of the script, the last one for ever."""

    def __init__(self, *answers: NDArray[np.bool_] | tuple[NDArray[np.bool_], float]) -> None:
        self.answers, self.asked = list(answers), []

    def __call__(self, asked: dict) -> tuple[NDArray[np.bool_], float]:
        self.asked.append(asked)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, tuple) else (answer, 0.9)


def with_script(plain: Predictor, script: Script, names: dict | None = None) -> Predictor:
    contexts = scripted_contexts(plain.encoder, script, names)
    return Predictor(plain.model, plain.cache, prefetch_slices=0, contexts=contexts).for_volume(plain.slices.volume)


def begin(plain: Predictor, script: Script, names: dict | None = None) -> InteractiveSession:
    return InteractiveSession(with_script(plain, script, names), slot=OnlySlot().hold)


class OnlySlot:
    """The one slot of a server: who asks for another one while holding it would wait for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, on_slice: OnSlice = ignore) -> Iterator[OnSlice]:
        assert self._lock.acquire(timeout=SECONDS), "waits for a slot while it holds one"
        try:
            yield on_slice
        finally:
            self._lock.release()


def test_one_click_gives_the_structure_that_the_context_sees_with_borders_by_the_decoder(plain: Predictor) -> None:
    script = Script(ORGAN | STRAY)
    session = begin(plain, script)
    refinement = session.add_point("Liver ", CENTRE)
    assert refinement.decided == (6,)
    assert refinement.followed == tuple(k for k in range(2, 11) if k != 6)
    mask = session.mask("Liver ")
    assert dice(mask, ORGAN) > 0.9
    assert not (mask & STRAY).any()  # not connected with the click
    assert script.asked == [
        {"foreground": (CENTRE,), "background": (), "box": None, "mask": None, "name": "liver"}
    ]  # the name in its usual spelling
    state = session.state("Liver ")
    assert state.followed == frozenset(refinement.followed)
    assert state.slices[6].foreground == {CENTRE}


def test_the_same_click_asks_nothing(plain: Predictor) -> None:
    script = Script(ORGAN)
    session = begin(plain, script)
    session.add_point("liver", CENTRE)
    history = session.history
    assert session.set_prompts(PromptSet("liver", {"liver": Prompts((CENTRE,))}))["liver"].decided == ()
    assert session.history is history
    assert len(script.asked) == 1


def test_a_background_click_removes_the_wrong_part_that_it_lies_in_and_nothing_else(plain: Predictor) -> None:
    missing = ORGAN & (X < 24)
    script = Script(ORGAN | LEAK, ORGAN & ~missing)  # it also gives up a part that is right
    session = begin(plain, script)
    session.add_point("liver", CENTRE)
    before = session.mask("liver")
    assert (before & LEAK).sum() > 0.8 * LEAK.sum()
    session.add_point("liver", (66, 36, 5), positive=False)
    after = session.mask("liver")
    assert script.asked[-1]["background"] == ((66, 36, 5),)
    np.testing.assert_array_equal(script.asked[-1]["mask"], before)
    assert (after & LEAK & ~ORGAN & (X > 58)).sum() < 0.1 * (LEAK & (X > 58)).sum()
    np.testing.assert_array_equal(after[:46], before[:46])
    assert not (after & ~before).any()


def test_a_foreground_click_adds_the_missing_part_that_it_lies_in_and_nothing_else(plain: Predictor) -> None:
    script = Script(ORGAN & (X < 40), ORGAN | LEAK | STRAY)
    session = begin(plain, script)
    session.add_point("liver", (28, 36, 6))
    before = session.mask("liver")
    session.add_point("liver", (50, 36, 7))
    after = session.mask("liver")
    assert not (before & ~after).any()
    assert dice(after, ORGAN | LEAK) > 0.85
    assert not (after & STRAY).any()


def test_a_click_that_the_context_does_not_follow_changes_its_surroundings(plain: Predictor) -> None:
    session = begin(plain, Script(ORGAN | LEAK))
    session.add_point("liver", CENTRE)
    before = session.mask("liver")
    click = (66, 36, 5)
    session.add_point("liver", click, positive=False)
    after = session.mask("liver")
    assert not after[click]
    changed = np.argwhere(before != after)
    assert (np.abs(changed - click).max(0) <= (30, 30, 4)).all()


def test_without_a_context_that_is_sure_the_structure_is_followed(plain: Predictor) -> None:
    session = begin(plain, Script((ORGAN, 0.1)))
    session.add_point("liver", CENTRE)
    followed = session.mask("liver")
    assert np.count_nonzero(followed.any(axis=(0, 1))) > 4
    # Where the coarse mask has no trace of the structure, following stops.
    vetoed = begin(plain, Script((ORGAN & (Z < 8), 0.1)))
    vetoed.add_point("liver", CENTRE)
    assert vetoed.mask("liver")[..., :8].any()
    assert not vetoed.mask("liver")[..., 9:].any()


def test_a_structure_that_was_followed_changes_only_at_the_click(plain: Predictor) -> None:
    session = begin(plain, Script((ORGAN, 0.1), (ORGAN & (X < 40), 0.1)))
    session.add_point("liver", CENTRE)
    before = session.mask("liver")
    click = (54, 36, 6)
    assert before[click]
    session.add_point("liver", click, positive=False)
    after = session.mask("liver")
    assert not after[click]
    assert not (after & ~before).any()
    np.testing.assert_array_equal(after[:34], before[:34])


def test_points_taken_back_are_decided_anew(plain: Predictor) -> None:
    script = Script(ORGAN | LEAK, ORGAN, ORGAN | LEAK)
    session = begin(plain, script)
    one, two = Prompts((CENTRE,)), Prompts((CENTRE,), ((66, 36, 6),))
    first = session.set_prompts(PromptSet("liver", {"liver": one}))["liver"].mask
    session.set_prompts(PromptSet("liver", {"liver": two}))
    again = session.set_prompts(PromptSet("liver", {"liver": one}))["liver"].mask
    assert script.asked[-1]["background"] == ()
    assert script.asked[-1]["mask"] is None
    np.testing.assert_array_equal(again, first)


def test_points_inside_other_labels_are_background(plain: Predictor) -> None:
    script = Script(ORGAN)
    session = begin(plain, script)
    other = (30, 66, 5)
    session.set_prompts(PromptSet("liver", {"liver": Prompts((CENTRE,)), "cyst": Prompts((other,))}))
    assert [asked["background"] for asked in script.asked if asked["name"] == "liver"] == [(other,)]


def test_slices_that_were_drawn_stay(plain: Predictor) -> None:
    session = begin(plain, Script(ORGAN | LEAK, ORGAN))
    session.add_point("liver", CENTRE)
    drawn = session.mask("liver")
    drawn[..., 7] = False
    drawn[60:70, 30:40, 7] = True
    session.set_mask("liver", drawn)
    session.add_point("liver", (66, 36, 5), positive=False)
    np.testing.assert_array_equal(session.mask("liver")[..., 7], drawn[..., 7])


def in_plane(session: InteractiveSession, plain: Predictor, script: Script, plane: str) -> InteractiveSession:
    """The same work, shown in another plane."""
    contexts = scripted_contexts(plain.encoder, script)
    predictor = Predictor(plain.model, plain.cache, prefetch_slices=0, contexts=contexts)
    other = InteractiveSession(predictor.for_volume(plain.slices.volume, plane), slot=OnlySlot().hold)
    other.history = session.history
    return other


def test_what_lies_beyond_a_drawn_slice_stays_when_all_is_decided_anew(plain: Predictor) -> None:
    session = begin(plain, Script(ORGAN))
    session.add_point("liver", CENTRE)
    drawn = session.mask("liver")
    drawn[30:34, 30:34, 8] ^= True
    session.set_mask("liver", drawn)
    session.add_box("liver", (20, 52, 22, 50, 9, 9))
    mask = session.mask("liver")
    np.testing.assert_array_equal(mask[..., 8], drawn[..., 8])
    assert dice(mask[..., 9:], ORGAN[..., 9:]) > 0.8


def test_a_click_corrects_in_3d_what_a_prompt_in_another_plane_began(plain: Predictor) -> None:
    script = Script(ORGAN | LEAK, ORGAN)
    coronal = in_plane(begin(plain, script), plain, script, "coronal")
    coronal.add_box("liver", (14, 76, 36, 36, 1, 11))
    assert coronal.mask("liver")[66, 36, 5]
    session = in_plane(coronal, plain, script, "axial")
    session.add_point("liver", (66, 36, 5), positive=False)
    mask = session.mask("liver")
    assert (mask & LEAK & (X > 58)).sum() < 0.1 * (LEAK & (X > 58)).sum()
    assert dice(mask, ORGAN) > 0.85
    # Points that were clicked in the other plane still count.
    coronal = in_plane(begin(plain, script), plain, Script(ORGAN | LEAK), "coronal")
    coronal.add_point("liver", CENTRE)
    script = Script(ORGAN)
    session = in_plane(coronal, plain, script, "axial")
    session.add_point("liver", (66, 36, 5), positive=False)
    assert script.asked[-1]["foreground"] == (CENTRE,)
    assert session.state("liver").points(inside=True) == {CENTRE}


def test_what_somebody_drew_in_another_plane_is_corrected_at_the_click(plain: Predictor) -> None:
    script = Script(ORGAN | LEAK)
    coronal = in_plane(begin(plain, script), plain, script, "coronal")
    coronal.add_point("liver", CENTRE)
    drawn = coronal.mask("liver")
    drawn[60:64, 30, 4:6] ^= True
    coronal.set_mask("liver", drawn)
    asked = len(script.asked)
    session = in_plane(coronal, plain, script, "axial")
    session.add_point("liver", (66, 36, 5), positive=False)
    assert len(script.asked) == asked


def test_a_correction_keeps_the_clicks_on_other_slices(plain: Predictor) -> None:
    session = begin(plain, Script(ORGAN, ORGAN | LEAK, np.zeros(SHAPE, bool)))
    session.add_point("liver", CENTRE)
    session.add_point("liver", (66, 36, 6))
    assert session.mask("liver")[66, 36, 6]
    # The context would remove all that is connected with this click.
    session.add_point("liver", (66, 40, 4), positive=False)
    assert session.mask("liver")[66, 36, 6]
    assert session.mask("liver")[CENTRE]
    assert not session.mask("liver")[66, 40, 4]


def test_the_box_still_counts_after_clicks_on_other_slices(plain: Predictor) -> None:
    script = Script(ORGAN)
    session = begin(plain, script)
    session.add_box("liver", (14, 58, 18, 54, 4, 7))
    for k, click in ((8, (36, 36, 8)), (9, (36, 36, 9)), (2, (60, 36, 2))):
        session.add_point("liver", click, positive=k != 2)
    assert [asked["box"] for asked in script.asked[1:]] == [(14, 58, 18, 54, 4, 7)] * (len(script.asked) - 1)
    assert len(script.asked) > 1


def test_a_point_may_become_one_of_the_other_kind(plain: Predictor) -> None:
    session = begin(plain, Script(ORGAN | LEAK, ORGAN))
    session.add_point("liver", CENTRE)
    session.add_point("liver", (66, 36, 5))
    script = Script(ORGAN)
    session = in_plane(session, plain, script, "axial")
    session.add_point("liver", (66, 36, 5), positive=False)
    assert not session.mask("liver")[66, 36, 5]
    assert not session.mask("liver")[70, 36, 6]  # and not on that slice alone


def test_a_whole_mask_that_was_drawn_is_corrected_at_the_click(plain: Predictor) -> None:
    script = Script(ORGAN)
    session = begin(plain, script)
    session.set_mask("liver", ORGAN | LEAK)
    session.add_point("liver", (66, 36, 5), positive=False)
    assert script.asked == []


def test_a_mask_that_was_segmented_by_its_name_changes_in_the_part_at_the_click(plain: Predictor) -> None:
    session = begin(plain, Script(ORGAN))
    session.set_mask("liver", ORGAN | LEAK | STRAY, automatic=True)
    session.add_point("liver", (66, 36, 5), positive=False)
    mask = session.mask("liver")
    assert (mask & STRAY).sum() == STRAY.sum()
    assert (mask & LEAK & ~ORGAN & (X > 58)).sum() < 0.1 * (LEAK & (X > 58)).sum()


def test_a_box_of_several_slices_is_the_limit(plain: Predictor) -> None:
    session = begin(plain, Script(ORGAN))
    session.add_box("liver", (14, 58, 18, 54, 4, 7))
    assert sorted(np.flatnonzero(session.mask("liver").any(axis=(0, 1)))) == [4, 5, 6, 7]


def test_undo_and_a_round_trip_keep_what_the_context_made(plain: Predictor, tmp_path) -> None:
    session = begin(plain, Script(ORGAN))
    session.add_point("liver", CENTRE)
    session.save(tmp_path)
    loaded = InteractiveSession.load(tmp_path, with_script(plain, Script(ORGAN)))
    np.testing.assert_array_equal(loaded.mask("liver"), session.mask("liver"))
    session.undo()
    assert not session.mask("liver").any()


def test_names_that_only_the_context_knows_are_segmented_by_it(plain: Predictor) -> None:
    session = begin(plain, Script(ORGAN), {"liver": ORGAN, "spleen": STRAY})
    prediction, stay = session.segment_by_name(["spleen", "Liver"], None)
    assert stay == []
    assert prediction.predicted_iou == {"spleen": 0.9, "Liver": 0.9}
    assert dice(session.mask("Liver"), ORGAN) > 0.9
    assert dice(session.mask("spleen"), STRAY) > 0.85
    assert session.state("Liver").source is Source.AUTOMATIC
    with pytest.raises(InputError, match="cyst was never learned"):
        session.segment_by_name(["liver", "cyst"], None)


def test_without_a_point_small_components_are_left_out(plain: Predictor) -> None:
    crumb = (np.abs(X - 80) < 3) & (np.abs(Y - 66) < 3) & (Z == 6)
    session = begin(plain, Script(ORGAN), {"liver": ORGAN | crumb})
    session.segment_by_name(["liver"], None)
    assert not session.mask("liver")[74:, 60:].any()


def test_a_context_is_prepared_once_and_in_the_background(plain: Predictor) -> None:
    made: list[ScriptedContext] = []

    def make(encoder, slices):
        made.append(ScriptedContext(slices, Script(ORGAN), {}))
        return made[-1]

    contexts = ContextCache(plain.encoder, make)
    predictor = Predictor(plain.model, plain.cache, prefetch_slices=0, contexts=contexts)
    predictor.for_volume(plain.slices.volume).prepare_context()
    assert contexts.wait(SECONDS)
    predictor.for_volume(plain.slices.volume).context.masker()
    assert [context.prepared for context in made] == [1]
    predictor.close()


def waiting_contexts(
    plain: Predictor, began: threading.Event, go_on: threading.Event
) -> tuple[ContextCache, list[ScriptedContext]]:
    """Contexts whose preparation begins and then waits, and a list of those that were made."""
    made: list[ScriptedContext] = []

    class Waiting(ScriptedContext):
        def prepare(self, on_slice=lambda done: None) -> None:
            on_slice(0)
            began.set()
            assert go_on.wait(SECONDS)
            super().prepare(on_slice)

    def make(encoder, slices):
        made.append(Waiting(slices, Script(ORGAN), {}))
        return made[-1]

    return ContextCache(plain.encoder, make), made


def test_preparing_ends_when_the_volume_is_left_and_nobody_waits_with_a_slot(plain: Predictor) -> None:
    began, go_on = threading.Event(), threading.Event()
    contexts, made = waiting_contexts(plain, began, go_on)
    contexts.start(plain.slices)
    assert began.wait(SECONDS)
    contexts.leave(plain.slices)
    go_on.set()
    assert contexts.wait(SECONDS)
    assert made[0].prepared == 0
    contexts.of(plain.slices).masker()  # whoever needs it later prepares it
    assert made[0].prepared == 1


def test_a_volume_that_was_dropped_for_newer_ones_can_be_started_again(plain: Predictor, monkeypatch) -> None:
    monkeypatch.setattr("causal_sam.prompting.prefetch.MAX_PENDING", 1)
    began, go_on = threading.Event(), threading.Event()
    contexts, made = waiting_contexts(plain, began, go_on)
    volume = plain.slices.volume
    others = [plain.for_volume(Volume(volume.array + n, volume.affine, "CT")).slices for n in (1, 2)]
    contexts.start(plain.slices)
    assert began.wait(SECONDS)
    for slices in (*others, others[0]):  # one waits at a time: the second drops the first, which is asked for again
        contexts.start(slices)
    go_on.set()
    assert contexts.wait(SECONDS)
    assert [context.prepared for context in made] == [1, 1, 0]


def test_a_click_prepares_by_itself_what_the_background_cannot(plain: Predictor) -> None:
    """The background has begun, and waits for its turn at the model as long as others use it."""
    began, go_on = threading.Event(), threading.Event()

    @contextmanager
    def starved(on_slice: OnSlice = ignore) -> Iterator[OnSlice]:
        began.set()
        assert go_on.wait(SECONDS)
        yield on_slice

    contexts = ContextCache(plain.encoder, lambda _, slices: ScriptedContext(slices, Script(ORGAN), {}), slot=starved)
    predictor = Predictor(plain.model, plain.cache, prefetch_slices=0, contexts=contexts)
    predictor = predictor.for_volume(plain.slices.volume)
    predictor.prepare_context()
    assert began.wait(SECONDS)
    click = threading.Thread(target=predictor.context.masker, daemon=True)
    click.start()
    click.join(SECONDS)
    is_waiting = click.is_alive()
    go_on.set()
    assert contexts.wait(SECONDS)
    predictor.close()
    assert not is_waiting


def test_contexts_are_kept_within_a_limit(plain: Predictor) -> None:
    slices = plain.slices
    size = slices.volume.array.nbytes + ScriptedContext.nbytes
    contexts = ContextCache(plain.encoder, lambda _, own: ScriptedContext(own, Script(ORGAN), {}), size + 10)
    one = contexts.of(slices)
    one.masker()
    assert contexts.of(slices) is one
    other = Volume(slices.volume.array + 1, slices.volume.affine, "CT")
    contexts.of(plain.for_volume(other).slices)
    assert contexts.of(slices) is not one
    both = ContextCache(plain.encoder, lambda _, own: ScriptedContext(own, Script(ORGAN), {}), 2 * size + 10)
    others = plain.for_volume(other).slices
    one, second = both.of(slices), both.of(others)
    for each in (one, second):
        each.masker()
    assert both.of(slices) is one
    second.masker().context.nbytes += 20  # it grows as it is used
    assert both.of(others) is second
    assert both.of(slices) is not one
    small = ContextCache(plain.encoder, lambda _, own: ScriptedContext(own, Script(ORGAN), {}), 10)
    one = small.of(slices)
    one.masker()
    assert small.of(slices) is one  # the only one stays
    small.of(plain.for_volume(other).slices)
    assert small.of(slices) is not one


def test_the_shipped_context_has_names_as_they_were_trained(plain: Predictor, monkeypatch) -> None:
    encoders = []
    monkeypatch.setattr(ContextModel, "load", lambda encode: encoders.append(encode))
    shipped_contexts(plain.encoder)
    names = ["L1 vertebra", "kidneys"]
    np.testing.assert_array_equal(encoders[0](names), load_text_encoder().encode(names))


def test_the_decoder_is_asked_how_sure_it_is_on_the_clicked_slice_too(plain: Predictor) -> None:
    predictor = with_script(plain, Script(ORGAN))
    session = InteractiveSession(predictor)
    session.add_point("liver", CENTRE)
    found = mask_uncertainty(predictor, "liver", session.state("liver"))
    assert found.slices == 11
    values = np.zeros(SHAPE, np.uint8)
    corner = tuple(slice(c, c + n) for c, n in zip(found.corner, found.values.shape, strict=True))
    values[corner] = found.values
    doubtful = (values > 50).sum((0, 1))
    assert doubtful[6] > doubtful[5] / 3 > 0


def test_a_decoder_on_the_whole_window_is_the_decoder(plain: Predictor) -> None:
    model, slices = plain.model, plain.slices
    embedding = joined([plain.encoder.embedding(slices, index) for index in (5, 6)])
    masks = torch.stack([torch.from_numpy(plain.mask_prompt(slices.frame.extract(ORGAN, index))) for index in (5, 6)])
    with torch.inference_mode():
        whole = model.decode(embedding, mask_logits=masks[:, None]).logits[:, 0]
        size = embedding.features.shape[-1]
        np.testing.assert_allclose(
            model.decode_masks(embedding, masks[:, None], Window(0, 0, size, size)), whole, atol=1e-4
        )
        part = model.decode_masks(embedding, masks[:, None], Window(2, 0, 20, 24))
    assert part.shape == (2, 80, 96)


def test_borders_of_slices_between_are_interpolated(plain: Predictor) -> None:
    decoder = BorderDecoder(plain.encoder, plain.slices)
    indices = [4, 5, 6, 7, 8]
    frame = plain.slices.frame
    coarse = np.stack([plain.mask_prompt(frame.extract(ORGAN, index)) for index in indices])
    drawn = decoder.draw(indices, coarse, frozenset({4, 8}))
    change = drawn - coarse
    np.testing.assert_allclose(change[2], (change[0] + change[4]) / 2, atol=1e-4)
    np.testing.assert_array_equal(decoder.draw(indices, np.full_like(coarse, -8), frozenset()), -8)


def test_what_hung_on_the_structure_by_a_removed_part_goes_with_it(plain: Predictor) -> None:
    rest = LEAK & (X > 66)
    answers = ORGAN | LEAK, ORGAN | rest
    session = begin(plain, Script(*answers))
    session.add_point("liver", CENTRE)
    assert (session.mask("liver") & rest).any()
    session.add_point("liver", (60, 36, 6), positive=False)
    assert not (session.mask("liver") & rest).any()
    # Of two parts that somebody clicked, both stay.
    session = begin(plain, Script(answers[0], answers[0], answers[1]))
    session.add_point("liver", CENTRE)
    session.add_point("liver", (71, 36, 6))
    session.add_point("liver", (60, 36, 6), positive=False)
    assert session.mask("liver")[71, 36, 6]


def test_a_box_on_one_slice_is_a_limit_there_and_grows_beside_it(plain: Predictor) -> None:
    session = begin(plain, Script(ORGAN | LEAK))
    session.add_box("liver", (16, 56, 20, 52, 6, 6))
    mask = session.mask("liver")
    assert not mask[64:, :, 6].any()
    assert dice(mask[..., 6], ORGAN[..., 6]) > 0.9
    assert mask[60:, :, 3:10].any()


def test_slices_that_another_label_took_from_are_corrected_with_the_rest(plain: Predictor) -> None:
    session = begin(plain, Script(ORGAN | LEAK, ORGAN))
    session.add_point("liver", CENTRE)
    assert (session.mask("liver") & LEAK)[..., 5].any()
    taken = (np.abs(X - 36) < 5) & (np.abs(Y - 36) < 5) & (np.abs(Z - 5) < 2)
    session.set_mask("lesion", taken)
    session.add_point("liver", (66, 36, 7), positive=False)
    left = (session.mask("liver") & LEAK & ~ORGAN & (X > 58)).sum((0, 1))
    assert not left[3:9].any()
    # What somebody drew on a slice stays.
    drawn = session.mask("liver") & (Z == 5) | LEAK & (Z == 5)
    session.set_mask("liver", session.mask("liver") | drawn)
    session.add_point("liver", (66, 36, 6), positive=False)
    assert (session.mask("liver") & LEAK)[..., 5].any()


def test_a_mask_without_points_has_a_place_that_stands_for_them(plain: Predictor) -> None:
    script = Script(ORGAN)
    session = begin(plain, script, {"liver": ORGAN | LEAK})
    session.segment_by_name(["liver"], None)
    session.add_point("liver", (66, 36, 5), positive=False)
    (implied,) = script.asked[-1]["foreground"]
    assert ORGAN[implied]
    assert not LEAK[implied]
    assert session.state("liver").slices[5].foreground == frozenset()
