"""The reading network of notes: features, readings, and how they decide together with the rules."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from causal_sam.errors import CheckpointError
from causal_sam.notes import Intervention, NoteRequest, Plan, load_interpreter
from causal_sam.notes.features import AMONG, ITSELF, NO_NAME, OTHER, PLACES, STRUCTURE, note_features
from causal_sam.notes.interpreter import MIN_CERTAINTY, MIN_CHOICE_CERTAINTY, decided
from causal_sam.notes.learned import LearnedReading, load_learned_reader, load_network
from causal_sam.notes.network import Words
from causal_sam.notes.rules import RuleInterpreter, RuleReading
from causal_sam.text.loading import load_text_encoder, load_token_encoder
from causal_sam.training.note_reading import new_network

KIDNEYS = ("right kidney", "left kidney")
SMALL = Intervention(label="liver", action="expand")
LARGE = Intervention(label="liver", action="shrink")
KEPT = Intervention(label="spleen", action="keep")


@pytest.fixture(scope="module")
def rules() -> RuleInterpreter:
    return RuleInterpreter()


@pytest.fixture(scope="module")
def features(rules):
    def features(note, *labels):
        request = NoteRequest(note, labels)
        fragments = rules.divided(request)
        return note_features(fragments, labels, {}, rules.reading(fragments, request).plan, load_token_encoder())

    return features


@pytest.fixture(scope="module")
def read(rules):
    def read(note, *labels, **more):
        request = NoteRequest(note, labels, **more)
        fragments = rules.divided(request)
        return load_learned_reader().read(fragments, request, rules.reading(fragments, request).plan)

    return read


def test_a_note_is_seen_from_each_label(features):
    seen = features("Both kidneys run into the colon; the right kidney lacks 4 mm laterally.", *KIDNEYS)
    references = [set(row.tolist()) for row in seen.mentions]
    assert references == [{NO_NAME, AMONG, STRUCTURE, ITSELF}, {NO_NAME, AMONG, STRUCTURE, OTHER}]
    place = next(n for n, mark in enumerate(seen.marks) if mark.kind == "place" and mark.values == ("lateral",))
    assert [PLACES[int(row[place]) - 1] for row in seen.places] == ["right", "left"]
    assert seen.shares.shape == (len(seen.marks), len(seen.tokens))
    assert seen.ruled.any(1).all()
    length = next(n for n, mark in enumerate(seen.marks) if mark.mm)
    assert bool(seen.hints[0, length])
    assert not bool(seen.hints[1, length])


def test_a_note_without_words_has_no_features(features):
    assert features("...", "liver") is None


def test_the_rules_can_read_alone():
    reading = load_interpreter("rules").invoke(NoteRequest("The spleen is too small.", ("liver", "spleen")))
    assert reading.interpreter == "rules"
    assert [act.label for act in reading.plan.interventions] == ["spleen"]


def test_spans_have_the_shares_of_their_tokens():
    encode = load_token_encoder()
    tokens, shares = encode("liver too small", [(0, 5), (6, 9), (0, 9), (9, 10)])
    assert tokens.shape == (shares.shape[1], 384)
    assert shares.sum(1).tolist() == pytest.approx([1, 1, 1, 0])
    torch.testing.assert_close(shares[2], (shares[0] + shares[1]) / 2)
    alone, of_liver = encode("liver", [(0, 5)])
    assert not torch.allclose(shares[:1] @ tokens, of_liver @ alone, atol=1e-2)  # in context


def test_the_upper_layers_go_on_where_the_lower_ones_end():
    text = "The spleen is too small at its upper pole."
    tokens, _ = load_token_encoder()(text, [(0, 3)])
    network = new_network(Words((), ())).eval()
    with torch.inference_mode():
        pooled = network.language(tokens[None]).mean(1)
    torch.testing.assert_close(F.normalize(pooled), load_text_encoder().encode([text]), atol=1e-5, rtol=0)


def test_a_note_is_read_the_same_beside_longer_ones(features):
    network = load_learned_reader()._network
    short = features("Spleen too small.", "liver", "spleen")
    long = features(
        "The liver is too large at its dome by 5 mm, and it has holes. Leave the spleen alone.", "liver", "spleen"
    )
    with torch.inference_mode():
        alone, both = (network(network.words.batch(notes)).presence[:2] for notes in ([short], [short, long]))
    torch.testing.assert_close(both, alone, atol=1e-4, rtol=0)


def test_a_file_that_holds_another_network_is_refused(tmp_path):
    path = tmp_path / "reader.safetensors"
    with pytest.raises(CheckpointError, match="reader of notes"):
        load_network(path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="reader of notes"):
        load_network(path)


@pytest.mark.parametrize(
    ("note", "labels", "acts"),
    [
        ("The spleen is too small at its upper pole.", ("liver", "spleen"), {("spleen", "expand", "superior")}),
        (
            "Liver: spills into the stomach. Leave the spleen alone.",
            ("liver", "spleen", "stomach"),
            {("liver", "exclude", None), ("spleen", "keep", None)},
        ),
        (
            "Right kidney: fill the holes and smooth it.",
            KIDNEYS,
            {(KIDNEYS[0], "fill", None), (KIDNEYS[0], "smooth", None)},
        ),
    ],
)
def test_plain_notes_are_read_with_certainty(read, note, labels, acts):
    reading = read(note, *labels)
    assert {(act.label, act.action, act.direction) for act in reading.interventions} == acts
    assert reading.certainty > MIN_CERTAINTY


def test_what_is_no_correction_is_none(read):
    assert read("What time is the next patient scheduled?", "liver").interventions == ()


def test_without_a_name_a_note_is_about_the_current_label(read):
    reading = read("too small on top", "liver", "spleen", current="spleen")
    assert {act.label for act in reading.interventions} == {"spleen"}


@pytest.mark.parametrize(
    "note",
    [
        *("liver wrong above slice 17", "liver: delete the last three slices"),
        "everything is too small at the top by about 4 mm, in each and every one of the labels",
    ],
)
def test_what_the_network_has_not_seen_is_left_to_the_rules(read, note):
    assert read(note, "liver", "spleen") is None


def test_a_note_that_the_encoder_does_not_read_to_its_end_is_left_to_the_rules(read):
    slices = ", ".join(map(str, range(1, 180)))
    assert read(f"The liver is too large on slices {slices}, and the spleen is too small.", "liver", "spleen") is None


def test_what_it_may_be_beside_the_name_of_another_label_is_left_to_the_rules(read):
    note = "reaches too far up into the spleen and it also has some holes that you should fill"
    assert read(note, "pancreas", "spleen", current="pancreas") is None


def test_a_note_about_very_many_labels_is_left_to_the_rules(read):
    labels = [f"lesion {n}" for n in range(1, 60)]
    assert read("The lesions are all too small at the top, and they have holes.", *labels) is None


def test_the_reader_is_thread_safe(read):
    notes = [f"The liver is {n} mm too large on top." for n in range(1, 9)]
    alone = [read(note, "liver") for note in notes]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda note: read(note, "liver"), notes)) == alone


@pytest.fixture(scope="module")
def decide(rules):
    def decide(note, by_rules, *acts, certainty=0.9, is_firm=False, labels=("liver", "spleen")):
        request = NoteRequest(note, labels)
        reading = RuleReading(by_rules, is_firm)
        return decided(rules.divided(request), request, reading, LearnedReading(acts, certainty)).plan

    return decide


def test_questions_about_what_the_note_says_stay(decide):
    asked = Plan(question="Which?")
    assert decide("The liver", asked, SMALL, is_firm=True) == asked
    assert decide("The liver", asked, SMALL).interventions == (SMALL,)


def test_a_question_offers_the_readings_that_are_possible(rules):
    request = NoteRequest("The liver", ("liver", "spleen"))
    by_rules = Plan(interventions=(LARGE,))

    def choices(by_rules, *acts, certainty=0.2):
        return decided(
            rules.divided(request), request, RuleReading(by_rules, False), LearnedReading(acts, certainty)
        ).choices

    assert choices(by_rules, SMALL) == (by_rules, Plan(interventions=(SMALL,)))
    assert choices(by_rules, SMALL, LARGE) == (by_rules,)  # it contradicts itself
    assert choices(Plan(question="What?"), SMALL) == (Plan(interventions=(SMALL,)),)
    assert choices(Plan(question="What?")) == ()
    assert choices(Plan(question="What?"), SMALL, certainty=MIN_CHOICE_CERTAINTY / 2) == ()
    assert choices(by_rules, LARGE) == ()  # they agree


def test_where_both_agree_the_plan_is_that_of_the_rules(decide):
    by_rules = Plan(interventions=(SMALL,))
    assert decide("The liver", by_rules, SMALL, certainty=0.01) == by_rules


def test_the_network_counts_where_it_is_certain(decide):
    assert decide("The liver", Plan(question="What?"), SMALL).interventions == (SMALL,)
    assert decide("The liver", Plan(interventions=(LARGE,)), SMALL).interventions == (SMALL,)
    assert decide("The liver", Plan(interventions=(LARGE,))).question


def test_where_both_differ_and_the_network_is_not_certain_the_question_names_both(decide):
    question = decide("The liver", Plan(interventions=(LARGE,)), SMALL, certainty=0.2).question
    assert question == 'Which is meant: "shrink the liver", or "expand the liver"?'
    unsure = decide("The liver", Plan(interventions=(LARGE,)), SMALL, certainty=MIN_CHOICE_CERTAINTY / 2).question
    assert unsure == 'Is this meant: "shrink the liver"?'
    more = decide("The liver", Plan(interventions=(LARGE,)), LARGE, SMALL, certainty=0.2).question
    assert more == 'Is this meant: "shrink the liver"?'  # with the other it would contradict itself
    assert decide("The liver", Plan(question="What?"), SMALL, certainty=0.2).question == "What?"


def test_what_the_rules_keep_stays(decide):
    by_rules = Plan(interventions=(SMALL, KEPT))
    note = "The liver is too small, leave the spleen alone."
    assert decide(note, by_rules, SMALL, Intervention(label="spleen", action="shrink")).question
    assert decide(note, by_rules, LARGE).interventions == (LARGE, KEPT)
    near_spleen = Intervention(label="liver", action="expand", near="spleen")
    assert decide(note, by_rules, near_spleen) == by_rules


def test_a_label_that_the_note_does_not_name_is_not_changed(decide):
    assert decide("Far too small.", Plan(question="Which?"), SMALL).question == "Which?"
    assert decide("The spleen is far too small.", Plan(question="Which?"), SMALL).question == "Which?"


def test_the_network_cannot_overlook_a_denial(decide):
    by_rules = Plan(interventions=(Intervention(label="spleen", action="expand"),))
    note = "The liver is not too large, but the spleen is too small."
    assert decide(note, by_rules, LARGE, *by_rules.interventions) == by_rules


@pytest.mark.parametrize(
    ("acts", "is_taken"),
    [
        ((SMALL,), False),
        ((SMALL, Intervention(label="spleen", action="shrink")), False),
        ((SMALL, Intervention(label="spleen", action="shrink", extent_mm=4)), True),
    ],
)
def test_acts_that_leave_out_a_label_or_a_length_are_not_taken(decide, acts, is_taken):
    note = "The liver is too small, and the spleen is 4 mm too large."
    assert (decide(note, Plan(question="What?"), *acts).question is None) is is_taken


@pytest.mark.parametrize(
    "acts",
    [
        (SMALL, LARGE),
        tuple(
            Intervention(label=label, action="exclude", near=near)
            for label, near in (("liver", "spleen"), ("spleen", "liver"))
        ),
    ],
)
def test_acts_that_contradict_each_other_are_not_taken(decide, acts):
    assert decide("Liver and spleen.", Plan(question="Which?"), *acts).question == "Which?"


def test_a_length_that_the_rules_use_is_not_left_out(decide):
    by_rules = Plan(interventions=(Intervention(label="liver", action="shrink", extent_mm=4),))
    without = Intervention(label="liver", action="remove")
    assert decide("The liver is 4 mm too large, and there is an island.", by_rules, without).question


@pytest.mark.parametrize(
    ("note", "act"),
    [
        ("Do not touch the spleen, and the liver wants frobnication.", Intervention(label="spleen", action="shrink")),
        ("The spleen, as far as I see it, is not too large, but the liver wants frobnication.", None),
    ],
)
def test_what_the_note_protects_or_denies_does_not_change_even_if_the_rules_ask(decide, note, act):
    spleen = act or Intervention(label="spleen", action="shrink")
    plan = decide(note, Plan(question="What?"), SMALL, spleen)
    assert "spleen" not in {each.label for each in plan.interventions}


def test_it_is_not_asked_whether_a_label_is_kept_that_does_not_change_anyway(decide):
    by_rules = Plan(interventions=(SMALL,))
    assert decide("The liver is too small.", by_rules, SMALL, KEPT, certainty=0.2) == by_rules
    assert decide("The liver is too small.", by_rules, SMALL, KEPT).interventions == (SMALL, KEPT)


def test_a_strength_beside_a_length_makes_no_difference(decide):
    by_rules = Plan(interventions=(Intervention(label="liver", action="shrink", extent_mm=4, strength="slight"),))
    same = Intervention(label="liver", action="shrink", extent_mm=4)
    assert decide("The liver is slightly too large, 4 mm.", by_rules, same, certainty=0.1) == by_rules


def test_the_question_is_about_what_differs(decide):
    by_rules = Plan(interventions=(LARGE, Intervention(label="spleen", action="fill")))
    question = decide("Liver and spleen.", by_rules, *by_rules.interventions[1:], certainty=0.1).question
    assert question.startswith('Is this meant, too: "shrink the liver"?')
    assert question.endswith("The rest of the note is clear: fill the holes of the spleen.")
    many = Plan(interventions=tuple(Intervention(label=f"lesion {n}", action="expand") for n in range(40)))
    assert "one correction a sentence" in decide("Lesions.", many, SMALL, certainty=0.1).question


@pytest.mark.parametrize(
    ("note", "labels"),
    [
        ("It is not too large.", ("liver",)),
        ("The liver is good. It is not too large.", ("liver", "spleen")),
        ("Do not touch it.", ("liver",)),
        ("The liver is good. Do not touch it.", ("liver", "spleen")),
        ("Leave the liver alone", ("liver lesion", "liver")),
    ],
)
def test_denials_hold_without_a_name_and_in_the_next_sentence(decide, note, labels):
    asked = Plan(question="What?")
    assert decide(note, asked, LARGE, labels=labels) == asked


def test_an_ambiguous_name_protects_all_that_it_may_mean(decide):
    asked, act = Plan(question="What?"), Intervention(label="left kidney", action="shrink")
    assert decide("Leave the kidney alone, the left kidney", asked, act, labels=KIDNEYS) == asked


def test_what_is_protected_beside_a_label_does_not_protect_the_label(decide):
    asked, note = Plan(question="What?"), "The liver is wrong at the dome, do not touch the gallbladder"
    act = Intervention(label="liver", action="expand", direction="superior")
    assert decide(note, asked, act).interventions == (act,)


def test_a_note_about_something_else_changes_no_label(decide):
    asked = Plan(question="There is no label gallbladder.")
    assert decide("The gallbladder is 4 mm too large, as the surgeon says", asked, LARGE, labels=("liver",)) == asked


def test_strengths_of_the_rules_belong_to_their_directions(decide):
    acts = tuple(
        Intervention(label="liver", action="shrink", direction=side, strength=strength)
        for side, strength in (("left", "slight"), ("anterior", "strong"))
    )
    read = tuple(act.model_copy(update={"strength": "moderate"}) for act in acts)
    by_rules = Plan(interventions=acts)
    assert decide("The liver on the left and in front", by_rules, *read) == by_rules


def test_a_label_cannot_change_and_stay(decide):
    asked = Plan(question="What?")
    assert decide("The liver", asked, SMALL, Intervention(label="liver", action="keep")) == asked


def test_very_many_acts_are_no_reading(decide):
    asked = Plan(question="What?")
    acts = [Intervention(label="liver", action="shrink", slices=(n, n)) for n in range(1, 1100)]
    assert decide("The liver", asked, *acts) == asked


def test_a_note_about_another_label_than_the_chosen_one_is_read(read):
    note = "as so often the spleen reaches a bit too far, so pull it in on top"
    assert read(note, "liver", "spleen", current="liver") == read(note, "liver", "spleen")
