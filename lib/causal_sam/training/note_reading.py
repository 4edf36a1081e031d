"""The objective of the reading network: notes with known plans, alone and put together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from causal_sam.atomic import atomic_write
from causal_sam.notes.features import (
    ACTIONS,
    DIRECTIONS,
    MAX_MARKS,
    MAX_SENTENCES,
    NO_NAME,
    OTHER,
    STOP,
    STRUCTURE,
    EncodeTokens,
    NoteFeatures,
    note_features,
)
from causal_sam.notes.fragments import Mark
from causal_sam.notes.learned import labels_to_read
from causal_sam.notes.network import (
    NEVER,
    STRENGTHS,
    ReadingNetwork,
    Words,
    may_be_pointed,
)
from causal_sam.notes.request import NoteRequest
from causal_sam.notes.rules import RuleInterpreter
from causal_sam.notes.schema import Intervention
from causal_sam.text import canonical
from causal_sam.text.loading import load_upper_layers
from causal_sam.training.engine import Objective

WEIGHTS = "reader.safetensors"
# Parts of a transformer layer of torch -> what `transformers` calls them in BERT.
BERT_NAMES = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
# Examples that are sorted by their length together.
DRAWN_AT_ONCE = 400


@dataclass(frozen=True)
class LearnedNote:
    """A note with what the network is to say of it.

    Attributes:
        features: the note.
        plan: the acts that it asks for; None if it requires a question.
    """

    features: NoteFeatures
    plan: tuple[Intervention, ...] | None

    def joined(self, other: LearnedNote) -> LearnedNote | None:
        """Return both notes as one; the tokens of each are those of the note by itself.

        None if they have a label in common, one requires a question, names no label or is not read by the rules, or
        both together are too long.
        """
        one, two = self.features, other.features
        if self.plan is None or other.plan is None or set(one.labels) & set(two.labels):
            return None
        if any(bool(note.facts[:, 1].any() or note.ruled[:, -1].any()) for note in (one, two)):
            return None
        if len(one.marks) + len(two.marks) >= MAX_MARKS:
            return None
        end = one.sentences[-1:]
        features = NoteFeatures(
            marks=(*one.marks, STOP, *two.marks),
            labels=one.labels + two.labels,
            tokens=torch.cat([one.tokens, two.tokens]),
            shares=torch.block_diag(F.pad(one.shares, (0, 0, 0, 1)), two.shares),
            sentences=torch.cat([one.sentences, end, two.sentences + end + 1]).clamp(max=MAX_SENTENCES - 1),
            mentions=_seen_from_both(
                one.mentions, two.mentions, (_mentions_to_others(one.mentions), _mentions_to_others(two.mentions))
            ),
            places=_seen_from_both(one.places, two.places, (one.places[0], two.places[0])),
            sides=torch.cat([one.sides, two.sides]),
            facts=torch.cat([one.facts, two.facts]) * torch.tensor([1.0, 1, 0]),
            ruled=torch.cat([one.ruled, two.ruled]),
            hints=_seen_from_both(
                one.hints, two.hints, (torch.zeros_like(one.hints[0]), torch.zeros_like(two.hints[0]))
            ),
        )
        return LearnedNote(features, self.plan + other.plan)


def _seen_from_both(one: Tensor, two: Tensor, others: tuple[Tensor, Tensor]) -> Tensor:
    """Join what the marks of two notes say to their own labels, LxU, and to the other note's, U."""
    gap = one.new_zeros(len(one) + len(two), 1)
    first = torch.cat([one, others[0].expand(len(two), -1)])
    second = torch.cat([others[1].expand(len(one), -1), two])
    return torch.cat([first, gap, second], 1)


def _mentions_to_others(mentions: Tensor) -> Tensor:
    """Return how marks refer to a label that the note does not know: LxU -> U."""
    row = mentions[0]
    return torch.where((row > NO_NAME) & (row < STRUCTURE), OTHER, row)


def learned_notes(
    notes: Iterable[tuple[NoteRequest, tuple[Intervention, ...] | None]], encode: EncodeTokens
) -> Iterator[LearnedNote]:
    """Prepare notes for the training; those without words are left out.

    Args:
        notes: notes with the acts that each asks for; None if it requires a question.
        encode: tokens of a text.
    """
    rules = RuleInterpreter()
    for request, plan in notes:
        fragments = rules.divided(request)
        labels = labels_to_read(fragments, request)
        features = note_features(fragments, labels, request.sides, rules.reading(fragments, request).plan, encode)
        if features is not None:
            yield LearnedNote(replace(features, tokens=features.tokens.half()), plan)


class NoteReadingObjective(Objective):
    """Trains `ReadingNetwork` on batches of notes.

    Args:
        network: network to train.
        learning_rate: highest learning rate.
        language_factor: factor to it for the layers of the sentence encoder; 0 to leave them as they are.
    """

    def __init__(self, network: ReadingNetwork, learning_rate: float, language_factor: float) -> None:
        super().__init__()
        self.network = network
        self._learning_rate, self._language_factor = learning_rate, language_factor
        network.language.requires_grad_(language_factor > 0)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `Objective`."""
        others = [each for name, each in self.network.named_parameters() if not name.startswith("language.")]
        groups = [{"params": others, "lr": self._learning_rate}]
        if self._language_factor:
            language = list(self.network.language.parameters())
            groups.append({"params": language, "lr": self._language_factor * self._learning_rate})
        return groups

    def forward(self, batch: Sequence[LearnedNote], progress: float) -> dict[str, Tensor]:
        """Return the loss of some notes, each term as a sum over their acts by the number of notes."""
        notes = self.network.words.batch([note.features for note in batch])
        hidden = self.network(notes)
        count = len(batch)
        asks = torch.tensor([float(note.plan is None) for note in batch])
        labels = torch.bincount(notes.notes, minlength=count)
        question = torch.zeros(count).index_add(0, notes.notes, hidden.question.float()) / labels
        acts = _acts_of(batch)
        wanted = torch.zeros_like(hidden.presence, dtype=torch.float32)
        directions = torch.zeros(*wanted.shape, len(DIRECTIONS))
        for act in acts:
            wanted[act.pair, act.action] = 1
            directions[act.pair, act.action, act.direction] = 1
        is_plan = 1 - asks[notes.notes]
        presence = F.binary_cross_entropy_with_logits(hidden.presence.float(), wanted, reduction="none").sum(1)
        loss = F.binary_cross_entropy_with_logits(question, asks) + (presence * is_plan).sum() / count
        if not acts:
            return {"loss": loss}
        pairs, actions = torch.tensor([act.pair for act in acts]), torch.tensor([act.action for act in acts])
        seen = hidden.actions[pairs, actions]
        where = self.network.to_directions(seen).float()
        loss = loss + F.binary_cross_entropy_with_logits(where, directions[pairs, actions], reduction="sum") / count
        strengths = torch.tensor([act.strength for act in acts])
        loss = loss + 0.5 * F.cross_entropy(self.network.to_strengths(seen).float(), strengths, reduction="sum") / count
        pointed = self.network.pointed(hidden.marks[pairs], seen, torch.tensor([act.direction for act in acts])).float()
        for logits, act in zip(pointed, acts, strict=True):
            logits = logits[:, : act.targets.shape[1]].masked_fill(~act.allowed, NEVER).log_softmax(-1)
            known = act.targets.any(1)
            loss = loss - logits.masked_fill(~act.targets, NEVER).logsumexp(-1)[known].sum() / count
        return {"loss": loss}

    def save_weights(self, path: Path) -> None:
        """Write the weights in half precision; the file appears whole or not at all."""
        words = json.dumps({"kinds": self.network.words.kinds, "values": self.network.words.values})
        weights = {name: value.half().contiguous() for name, value in self.network.state_dict().items()}
        with atomic_write(path) as part:
            save_file(weights, part, metadata={"network": "note reader", "words": words})


def new_network(words: Words) -> ReadingNetwork:
    """Return an untrained network, whose layers of the sentence encoder are those of `load_upper_layers`."""
    network = ReadingNetwork(words)
    for own, layer in zip(network.language.layers, load_upper_layers(), strict=True):
        theirs, state = layer.state_dict(), {}
        for kind in ("weight", "bias"):
            parts = [theirs[f"attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"self_attn.in_proj_{kind}"] = torch.cat(parts)
            for mine, name in BERT_NAMES.items():
                state[f"{mine}.{kind}"] = theirs[f"{name}.{kind}"]
        own.load_state_dict(state)
    return network


@dataclass(frozen=True)
class _WantedAct:
    """An act of a batch in numbers; ``pair`` counts the labels of all its notes.

    Attributes:
        allowed, targets: Px(1+U), what may and what should be pointed at; no target where nothing in the note fits.
    """

    pair: int
    action: int
    direction: int
    strength: int
    allowed: Tensor
    targets: Tensor


def _acts_of(batch: Sequence[LearnedNote]) -> list[_WantedAct]:
    acts, first = [], 0
    for note in batch:
        features = note.features
        allowed = F.pad(may_be_pointed(features), (1, 0), value=True)
        for act in note.plan or ():
            if act.label in features.labels:
                acts.append(
                    _WantedAct(
                        first + features.labels.index(act.label),
                        ACTIONS.index(act.action),
                        DIRECTIONS.index(act.direction),
                        STRENGTHS.index(act.strength),
                        allowed,
                        _targets(act, features.marks),
                    )
                )
        first += len(features.labels)
    return acts


def _targets(act: Intervention, marks: Sequence[Mark]) -> Tensor:
    """Return which marks have the neighbour, the length and the slices of an act: bool Px(1+U)."""
    near, length = canonical(act.near) if act.near else None, act.extent_mm
    neighbours = [canonical(mark.mention.neighbour) if mark.mention else None for mark in marks]
    found = [
        [near is None, *(near is not None and own == near for own in neighbours)],
        [length is None, *(length is not None and mark.mm == length for mark in marks)],
        [act.slices is None, *(act.slices in mark.slices for mark in marks)],
    ]
    return torch.tensor(found)


class NoteBatches:
    """Stream of batches without end: notes, and pairs of notes that are put together, of about the same length.

    Args:
        notes: all notes.
        cells: marks of a batch, times the labels of their notes.
        joined: share of the examples that are two notes put together.
        seed: seed of the draws.
    """

    def __init__(self, notes: Sequence[LearnedNote], cells: int, joined: float, seed: int) -> None:
        self._notes, self._cells, self._joined = list(notes), cells, joined
        self._rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[list[LearnedNote]]:
        while True:
            examples = sorted(self._examples(), key=lambda note: len(note.features.marks))
            batches: list[list[LearnedNote]] = [[]]
            for note in examples:
                length = len(note.features.marks)
                labels = sum(len(each.features.labels) for each in (*batches[-1], note))
                if batches[-1] and length * labels > self._cells:
                    batches.append([])
                batches[-1].append(note)
            yield from (batches[n] for n in self._rng.permutation(len(batches)))

    def _examples(self) -> Iterator[LearnedNote]:
        for one, two in self._rng.integers(len(self._notes), size=(DRAWN_AT_ONCE, 2)):
            note = self._notes[one]
            pair = note.joined(self._notes[two]) if self._rng.random() < self._joined else None
            yield pair or note
