"""Style of an image in controlled English, from its header and from measures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from causal_sam.imaging import Volume
from causal_sam.style.acquisition import Acquisition
from causal_sam.style.measures import StyleMeasures, measure
from causal_sam.style.slices import StyledSlices, sample_slices
from causal_sam.text import TextEncoder

# (upper limit, words); the last words have no limit.
_NOISE = ((0.02, "hardly any noise"), (0.05, "little noise"), (0.1, "visible noise"), (None, "strong noise"))
_NOISE_HU = ((8, "hardly any noise"), (16, "little noise"), (28, "visible noise"), (None, "strong noise"))
_BLUR = ((0.7, "sharp edges"), (1.1, "slightly blurred edges"), (1.8, "blurred edges"), (None, "very blurred edges"))
_BIAS = (
    (0.06, "an even brightness"),
    (0.14, "a weak bias field"),
    (0.25, "a bias field"),
    (None, "a strong bias field"),
)
_CONTRAST = ((0.15, "low contrast"), (0.35, "medium contrast"), (None, "high contrast"))
_BRIGHTNESS = ((0.35, "mostly dark tissue"), (0.6, "tissue of medium brightness"), (None, "mostly bright tissue"))
_THICK_MM = ((1.5, "thin slices"), (4.0, "slices of medium thickness"), (None, "thick slices"))
_MODALITIES = ("CT", "MR")
_WEIGHTINGS = ("T1", "T2", "PD", "T2*")


@dataclass(frozen=True)
class StyleDescription:
    """The style of an image.

    Attributes:
        acquisition: facts from the header.
        measured: measures of the image.
        model_sentence: description of a vision-language model; None if none was asked or its answer is unusable.
        source: "measured", or the name of the vision model.
        failure: reason why the answer of the vision model is unusable; None otherwise.
    """

    acquisition: Acquisition
    measured: StyleMeasures
    model_sentence: str | None = None
    source: str = "measured"
    failure: str | None = None

    @property
    def sentence(self) -> str:
        """The description of the vision model if there is one, otherwise the measured one."""
        return self.model_sentence or self.measured_sentence

    @property
    def measured_sentence(self) -> str:
        """Controlled English from the header and rounded measures; images of equal style have equal sentences."""
        return f"{self._acquisition_sentence()} It has {_join(self._words())}.{self._artefact_sentence()}"

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, words and evidence for JSON."""
        return {
            "sentence": self.sentence,
            "measured_sentence": self.measured_sentence,
            "source": self.source,
            "failure": self.failure,
            "acquisition": asdict(self.acquisition),
            "measured": asdict(self.measured),
            "words": self._words(),
            "visible_artefacts": [artefact.name for artefact in self.measured.artefacts if artefact.is_visible],
        }

    def vector(self, encoder: TextEncoder) -> Tensor:
        """Encode the sentence as a unit vector of dimension D."""
        return encoder.encode([self.sentence])[0]

    def _acquisition_sentence(self) -> str:
        facts = self.acquisition
        kind = facts.modality if facts.modality in _MODALITIES else "medical"
        if facts.sequence:
            kind = f"{facts.sequence}{'-weighted' if facts.sequence in _WEIGHTINGS else ''} {kind}"
        of = [f"{facts.field_strength:g} T"] if facts.field_strength else []
        of += [f"{facts.kvp:.0f} kV"] if facts.kvp else []
        of += [name for name in (facts.vendor, facts.model_family) if name]
        # The names of spelled letters, as in MR, begin with a vowel; FLAIR is pronounced as a word.
        article = "An" if kind[0] in "AEFM" and not kind.startswith("FLAIR") else "A"
        text = f"{article} {kind} image"
        if of:
            text += f" from a {' '.join(of)} scanner"
        more = [f"{facts.kernel} kernel"] if facts.kernel else []
        if facts.phase:
            more.append("no contrast agent" if facts.phase == "native" else f"{facts.phase} phase")
        elif facts.contrast_agent is not None:
            more.append("contrast agent" if facts.contrast_agent else "no contrast agent")
        if facts.slice_thickness:
            more.append(_word(facts.slice_thickness, _THICK_MM) + f" of {facts.slice_thickness:.2g} mm")
        if facts.pixel_spacing:
            more.append(f"pixels of {max(round(max(facts.pixel_spacing), 1), 0.1):g} mm")
        return f"{text}{', with ' + _join(more) if more else ''}."

    def _words(self) -> list[str]:
        found = self.measured
        words = [_word(found.noise, _NOISE) if found.noise_hu is None else _word(found.noise_hu, _NOISE_HU)]
        if found.blur is not None:
            words.append(_word(found.blur, _BLUR))
        if found.bias_field is not None:
            words.append(_word(found.bias_field, _BIAS))
        return [*words, _word(found.contrast, _CONTRAST), _word(found.brightness[2], _BRIGHTNESS)]

    def _artefact_sentence(self) -> str:
        visible = [artefact.name for artefact in self.measured.artefacts if artefact.is_visible]
        return f" It shows {_join(visible)}." if visible else ""


def describe(volume: Volume) -> StyleDescription:
    """Describe the style of a volume, without patient data."""
    return describe_slices(sample_slices(volume))


def describe_slices(slices: StyledSlices) -> StyleDescription:
    """Describe the style of slices."""
    return StyleDescription(slices.acquisition, measure(slices))


def _word(value: float, limits: tuple[tuple[float | None, str], ...]) -> str:
    return next(word for limit, word in limits if limit is None or value < limit)


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
