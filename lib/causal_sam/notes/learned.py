"""Reader of notes by the trained reading network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from causal_sam.errors import CheckpointError
from causal_sam.notes.drafts import WITHOUT_AMOUNT
from causal_sam.notes.features import ACTIONS, DIRECTIONS, EncodeTokens, NoteFeatures, note_features
from causal_sam.notes.fragments import STATEMENT_KINDS, Fragment
from causal_sam.notes.network import NEVER, STRENGTHS, ReadingNetwork, Words, may_be_pointed
from causal_sam.notes.request import NoteRequest
from causal_sam.notes.schema import Intervention, Plan
from causal_sam.text.loading import load_token_encoder

READER_WEIGHTS = Path(__file__).parent / "weights" / "reader.safetensors"
# The network looks at labels that a note does not name until there are so many in all, as in its training; it does not
# read notes that name many more.
USUAL_LABELS, MAX_LABELS = 6, 24
# Marks that need the image, or are no part of a correction: the network has not seen them.
UNKNOWN_KINDS = frozenset({"open slices", "end slices", "slice count", "amount", "foreign"})


@dataclass(frozen=True)
class LearnedReading:
    """What the network reads in a note.

    Attributes:
        interventions: acts in the order of the labels; empty if the note requires a question.
        certainty: probability of all decisions together, 0 to 1.
    """

    interventions: tuple[Intervention, ...]
    certainty: float


class LearnedReader:
    """Reads divided notes; thread-safe.

    Args:
        network: trained network.
        encode: tokens of a text.
    """

    def __init__(self, network: ReadingNetwork, encode: EncodeTokens) -> None:
        self._network, self._encode = network.eval(), encode

    @classmethod
    def load(cls, path: Path = READER_WEIGHTS) -> LearnedReader:
        """Load a reader with the network in a file; see `load_network`."""
        return cls(load_network(path), load_token_encoder())

    def read(self, fragments: Sequence[Fragment], request: NoteRequest, by_rules: Plan) -> LearnedReading | None:
        """Read a note.

        Args:
            fragments: the note, divided.
            request: the note with its labels.
            by_rules: what the rules read.

        Returns:
            The reading; None if the note has something that the network was not trained on.
        """
        if any(fragment.is_about_all() or fragment.has(*UNKNOWN_KINDS) for fragment in fragments):
            return None
        labels, named = labels_to_read(fragments, request), named_labels(fragments)
        # It does not know which label is the current one, and a note that begins without a name is about that.
        is_other = request.current and len(request.labels) > 1 and named and request.current not in named
        if (is_other and _begins_without_name(fragments)) or len(labels) > MAX_LABELS:
            return None
        features = note_features(fragments, labels, request.sides, by_rules, self._encode)
        return None if features is None else self.read_features(features)

    @torch.inference_mode()
    def read_features(self, features: NoteFeatures) -> LearnedReading:
        """Read a note from its features."""
        batch = self._network.words.batch([features])
        hidden = self._network(batch)
        asks = float(hidden.question.mean().sigmoid())
        presence = hidden.presence.sigmoid()
        certainty = float(torch.maximum(presence, 1 - presence).prod()) * max(asks, 1 - asks)
        acts: list[Intervention] = []
        if asks < 0.5:
            for pair, action in (presence > 0.5).nonzero().tolist():
                found, sure = self._acts(features, hidden.marks[pair], hidden.actions[pair, action], pair, action)
                acts += found
                certainty *= sure
        return LearnedReading(tuple(dict.fromkeys(acts)), certainty)

    def _acts(
        self, features: NoteFeatures, marks: Tensor, seen: Tensor, pair: int, action: int
    ) -> tuple[list[Intervention], float]:
        """Return the acts of one kind on one label, one for each direction, and the probability of their details."""
        directions = self._network.to_directions(seen).sigmoid()
        is_chosen = directions > 0.5
        is_chosen[0] = not is_chosen[1:].any()  # no direction: all of the label
        sure = float(torch.where(is_chosen, directions, 1 - directions).prod())
        strength = int(self._network.to_strengths(seen).argmax())
        acts = []
        for direction in is_chosen.nonzero()[:, 0].tolist():
            logits = self._network.pointed(marks[None], seen[None], torch.tensor([direction]))[0]
            logits[:, 1:] = logits[:, 1:].masked_fill(~may_be_pointed(features), NEVER)
            sure *= float(logits.softmax(-1).amax(-1).prod())
            near, length, ranges = (None if n == 0 else features.marks[n - 1] for n in logits.argmax(-1).tolist())
            for slices in ranges.slices if ranges else (None,):
                act = _intervention(
                    label=features.labels[pair],
                    action=ACTIONS[action],
                    direction=DIRECTIONS[direction],
                    near=near.mention.neighbour if near else None,
                    extent_mm=length.mm if length else None,
                    slices=slices,
                    strength=STRENGTHS[strength],
                )
                if act is None:
                    sure = 0.0
                else:
                    acts.append(act)
        return acts, sure


def load_network(path: Path) -> ReadingNetwork:
    """Load a network from safetensors, with its words in the metadata.

    Raises:
        CheckpointError: the file is missing or damaged, or holds another network.
    """
    try:
        with safe_open(path, "pt") as file:
            words = json.loads(file.metadata()["words"])
        network = ReadingNetwork(Words(tuple(words["kinds"]), tuple(words["values"])))
        network.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} holds no reader of notes of this version: {reason}") from error
    return network


def labels_to_read(fragments: Sequence[Fragment], request: NoteRequest) -> tuple[str, ...]:
    """Return the labels that the network looks at: those that the note names, and some others as it was trained with.

    A note that names none is about the current label, or perhaps about any if there is none.
    """
    named = named_labels(fragments)
    if not named and request.current:
        return (request.current,)
    others = [label for label in request.labels if label not in named]
    chosen = named.union(others[: max(0, USUAL_LABELS - len(named))])
    return tuple(label for label in request.labels if label in chosen)


def _begins_without_name(fragments: Sequence[Fragment]) -> bool:
    """Return whether a note says what is wrong before it names anything."""
    for fragment in fragments:
        statements = fragment.all(*STATEMENT_KINDS, "too")
        if statements:
            return not fragment.names_before(statements[0])
        if fragment.names:
            return False
    return True


def named_labels(fragments: Sequence[Fragment]) -> set[str]:
    """Return the labels that a note names, or may name."""
    return {label for fragment in fragments for mark in fragment.marks for label in mark.mention.all_labels}


def _intervention(**values) -> Intervention | None:
    """Return an intervention without what its action has no use for; None if it has no sense."""
    if values["near"] == values["label"]:
        values["near"] = None
    if values["action"] == "keep":
        values |= {"direction": None, "near": None, "extent_mm": None, "slices": None}
    if values["action"] in WITHOUT_AMOUNT or values["extent_mm"]:
        values["strength"] = "moderate"
    if values["action"] in WITHOUT_AMOUNT - {"fill"}:
        values["extent_mm"] = None
    try:
        return Intervention(**values)
    except ValidationError:
        return None


@cache
def load_learned_reader() -> LearnedReader:
    """Return the reader of the package, loaded once."""
    return LearnedReader.load()
