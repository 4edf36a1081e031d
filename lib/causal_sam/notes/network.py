"""The reading network: which acts a note asks for on each label, with their places, amounts and neighbours.

The upper layers of the sentence encoder, trained along, give each mark of a note its vector. A small transformer reads
the marks once for each label: the marks that name it are told from those that name others, as the entity markers of
relation extraction do (Baldini Soares et al. 2019, arXiv 1906.03158). Each action looks at the marks by attention;
slices, lengths and neighbours are pointed at among the marks (Vinyals et al. 2015, arXiv 1506.03134).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from causal_sam.notes.features import (
    ACTIONS,
    DIRECTIONS,
    FACTS,
    HINTS,
    MAX_MARKS,
    MAX_SENTENCES,
    PLACES,
    RULED,
    STRUCTURE,
    NoteFeatures,
    padded,
)
from causal_sam.notes.fragments import Mark
from causal_sam.notes.schema import Strength

STRENGTHS: tuple[Strength, ...] = get_args(Strength)
# Fields of an act that are found by pointing at a mark.
POINTERS = ("near", "extent_mm", "slices")
# Channels, and number of the layers of the sentence encoder that are part of the network.
TEXT_DIM, UPPER_LAYERS = 384, 3
# Logit of an impossible choice.
NEVER = -1e4


class NoteBatch(NamedTuple):
    """Features of N notes, padded to T tokens and U marks, and of B pairs of a note and one of its labels.

    See `NoteFeatures`.

    Attributes:
        tokens: NxTxD.
        shares: NxUxT.
        is_token_padding: NxT, true for padding.
        kinds, values, sentences, mentions, places: BxU numbers.
        sides: B.
        facts: BxFACTS.
        ruled: BxRULED.
        hints: BxU numbers.
        is_mark_padding: BxU.
        notes: B, the note of each pair, counted from 0.
    """

    tokens: Tensor
    shares: Tensor
    is_token_padding: Tensor
    kinds: Tensor
    values: Tensor
    sentences: Tensor
    mentions: Tensor
    places: Tensor
    sides: Tensor
    facts: Tensor
    ruled: Tensor
    hints: Tensor
    is_mark_padding: Tensor
    notes: Tensor


class Hidden(NamedTuple):
    """What the network makes of B pairs of a note and a label.

    Attributes:
        marks: Bx(1+U)xC; the first is the pair itself.
        actions: BxAxC, the note as each action sees it.
        presence: BxA logits: the note asks for the action on the label.
        question: B logits; their mean over the labels of a note is the logit that it requires a question.
    """

    marks: Tensor
    actions: Tensor
    presence: Tensor
    question: Tensor


@dataclass(frozen=True)
class Words:
    """Kinds and values of marks that have vectors of their own; others share one.

    Attributes:
        kinds: kinds of marks.
        values: first values of marks.
    """

    kinds: tuple[str, ...]
    values: tuple[str, ...]

    @classmethod
    def of(cls, notes: Sequence[NoteFeatures]) -> Words:
        """Return those of some notes."""
        marks = [mark for note in notes for mark in note.marks]
        kinds, values = {mark.kind for mark in marks}, {_value(mark) for mark in marks}
        return cls(tuple(sorted(kinds)), tuple(sorted(values)))

    def batch(self, notes: Sequence[NoteFeatures]) -> NoteBatch:
        """Return all pairs of these notes and their labels."""
        kinds, values = ({word: 1 + n for n, word in enumerate(own)} for own in (self.kinds, self.values))
        length = max(len(note.marks) for note in notes)
        counts = torch.tensor([len(note.labels) for note in notes])

        def of_notes(rows: list[Tensor]) -> Tensor:
            return padded(rows, length).repeat_interleave(counts, 0)

        lengths = torch.tensor([len(note.marks) for note in notes]).repeat_interleave(counts)
        sizes = torch.tensor([len(note.tokens) for note in notes])
        longest = int(sizes.max())
        tokens = [nn.functional.pad(note.tokens.float(), (0, 0, 0, longest - len(note.tokens))) for note in notes]
        rooms = [(0, longest - note.shares.shape[1], 0, length - note.shares.shape[0]) for note in notes]
        return NoteBatch(
            tokens=torch.stack(tokens),
            shares=torch.stack([nn.functional.pad(note.shares, room) for note, room in zip(notes, rooms, strict=True)]),
            is_token_padding=torch.arange(longest)[None] >= sizes[:, None],
            kinds=of_notes([torch.tensor([kinds.get(mark.kind, 0) for mark in note.marks]) for note in notes]),
            values=of_notes([torch.tensor([values.get(_value(mark), 0) for mark in note.marks]) for note in notes]),
            sentences=of_notes([note.sentences for note in notes]),
            mentions=padded([row for note in notes for row in note.mentions], length),
            places=padded([row for note in notes for row in note.places], length),
            sides=torch.cat([note.sides for note in notes]),
            facts=torch.cat([note.facts for note in notes]),
            ruled=torch.cat([note.ruled for note in notes]),
            hints=padded([row for note in notes for row in note.hints], length),
            is_mark_padding=torch.arange(length)[None] >= lengths[:, None],
            notes=torch.arange(len(notes)).repeat_interleave(counts),
        )


class ReadingNetwork(nn.Module):
    """Marks of a note to acts on a label.

    Args:
        words: kinds and values of marks.
        width: channels C.
        layers: layers of the transformer.
        dropout: share of channels, and of whole vectors of marks, that are left out in training.
    """

    def __init__(self, words: Words, width: int = 160, layers: int = 3, dropout: float = 0.15) -> None:
        super().__init__()
        self.words = words
        self.language = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(TEXT_DIM, 12, 4 * TEXT_DIM, 0.0, "gelu", 1e-12, batch_first=True),
            UPPER_LAYERS,
            enable_nested_tensor=False,
        )
        self.enter = nn.Linear(TEXT_DIM, width)
        self.kinds, self.values = _table(1 + len(words.kinds), width), _table(1 + len(words.values), width)
        self.sentences, self.mentions = _table(MAX_SENTENCES, width), _table(1 + STRUCTURE, width)
        self.places, self.sides = _table(1 + len(PLACES), width), _table(1 + len(PLACES), width)
        self.positions = _table(MAX_MARKS, width)
        self.facts, self.ruled, self.hints = nn.Linear(FACTS, width), nn.Linear(RULED, width), _table(HINTS, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        layer.self_attn.dropout = 0.0  # dropout of attention weights costs a quarter of the time
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.dropout, self.left_out = nn.Dropout(dropout), dropout
        self.actions = nn.Parameter(0.1 * torch.randn(len(ACTIONS), width))
        self.keys, self.contents = nn.Linear(width, width), nn.Linear(width, width)
        self.mix = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.LayerNorm(width))
        self.presence = nn.Parameter(torch.zeros(len(ACTIONS), width))
        # Most actions are not asked for.
        self.rarity = nn.Parameter(torch.full((len(ACTIONS),), -2.0))
        self.question = nn.Linear(width, 1)
        self.to_directions = nn.Linear(width, len(DIRECTIONS))
        self.to_strengths = nn.Linear(width, len(STRENGTHS))
        self.directions = _table(len(DIRECTIONS), width)
        self.pointers, self.targets = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width)
        self.nothing = nn.Parameter(0.1 * torch.randn(len(POINTERS), width))

    def forward(self, batch: NoteBatch) -> Hidden:
        """Read pairs of a note and a label."""
        tokens = self.language(batch.tokens, src_key_padding_mask=batch.is_token_padding)
        states, ruled, hints = self.enter(batch.shares @ tokens)[batch.notes], batch.ruled, batch.hints
        if self.training:
            # Names and words that it has never seen must be read by what stands around them, and some notes without
            # what the rules read.
            states = states * (torch.rand(states.shape[:2]) >= self.left_out)[..., None]
            is_shown = (torch.rand(int(batch.notes[-1]) + 1) >= self.left_out)[batch.notes, None]
            ruled, hints = ruled * is_shown, hints * is_shown
        x = self.dropout(states) + self.kinds(batch.kinds) + self.values(batch.values)
        x = x + self.sentences(batch.sentences) + self.mentions(batch.mentions) + self.places(batch.places)
        x = x + self.hints(hints) + self.positions.weight[: x.shape[1]]
        pair = self.sides(batch.sides) + self.facts(batch.facts) + self.ruled(ruled)
        is_padding = nn.functional.pad(batch.is_mark_padding, (1, 0))
        x = self.encoder(torch.cat([pair[:, None], x], 1), src_key_padding_mask=is_padding)
        seen = torch.einsum("ac,buc->bau", self.actions, self.keys(x)) / x.shape[-1] ** 0.5
        seen = seen.masked_fill(is_padding[:, None], NEVER).softmax(-1)
        actions = torch.einsum("bau,buc->bac", seen, self.contents(x)) + self.actions
        actions = self.mix(torch.cat([actions, x[:, :1].expand_as(actions)], -1))
        presence = (actions * self.presence).sum(-1) + self.rarity
        return Hidden(x, actions, presence, self.question(x[:, 0])[:, 0])

    def pointed(self, marks: Tensor, actions: Tensor, directions: Tensor) -> Tensor:
        """Return what N acts point at.

        Args:
            marks: Nx(1+U)xC, the marks of each act's note and label.
            actions: NxC.
            directions: N, numbers of the acts' directions.

        Returns:
            NxPx(1+U) logits in the order of `POINTERS`; the first of a row is that of nothing.
        """
        count = len(POINTERS)
        wanted = self.pointers(actions + self.directions(directions)).unflatten(-1, (count, -1))
        offered = self.targets(marks[:, 1:]).unflatten(-1, (count, -1))
        offered = torch.cat([self.nothing.expand(len(marks), 1, -1, -1), offered], 1)
        return torch.einsum("npc,nupc->npu", wanted, offered) / wanted.shape[-1] ** 0.5


def may_be_pointed(note: NoteFeatures) -> Tensor:
    """Return what acts on a note can point at: bool PxU in the order of `POINTERS`."""
    return torch.tensor(
        [
            [bool(mark.mention) for mark in note.marks],
            [mark.mm > 0 for mark in note.marks],
            [bool(mark.slices) for mark in note.marks],
        ]
    )


def _value(mark: Mark) -> str:
    return mark.values[0] if mark.values else ""


def _table(count: int, width: int) -> nn.Embedding:
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=0.1)
    return table
