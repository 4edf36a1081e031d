"""Facts about the acquisition from DICOM tags; all words come from lists in this file, never from the header."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from causal_sam.imaging import SliceFrame, Volume, slice_axis
from causal_sam.style.acquisition import Acquisition

MODALITIES = frozenset({"CT", "MR", "PT", "US", "CR", "DX", "MG", "XA", "NM"})
# Word in the tag Manufacturer -> vendor.
_VENDORS = {
    "siemens": "Siemens",
    "ge": "GE",
    "general electric": "GE",
    "philips": "Philips",
    "toshiba": "Toshiba",
    "canon": "Canon",
    "hitachi": "Hitachi",
    "fujifilm": "Fujifilm",
    "uih": "United Imaging",
    "united imaging": "United Imaging",
    "neusoft": "Neusoft",
    "esaote": "Esaote",
    "hyperfine": "Hyperfine",
    "bruker": "Bruker",
}
_TOSHIBA_FAMILIES = ("Aquilion", "Asteion", "Vantage", "Galan", "Orian")
_HITACHI_FAMILIES = ("Airis", "Echelon", "Oasis", "Scenaria", "Supria")
# Vendor -> families of its CT and MR scanners; the first one in the model name is used.
_FAMILIES = {
    "Siemens": (
        *("Aera", "Altea", "Amira", "Avanto", "Espree", "Essenza", "Lumina", "Prisma", "Skyra", "Sola", "Sonata"),
        *("Spectra", "Symphony", "Terra", "Trio", "Verio", "Vida", "Biograph", "Definition", "Emotion", "Force"),
        *("Perspective", "Sensation", "Drive", "Edge", "Naeotom", "Somatom", "Magnetom"),
    ),
    "GE": ("Signa", "Discovery", "Optima", "LightSpeed", "BrightSpeed", "Revolution", "Genesis"),
    "Philips": (
        *("Achieva", "Ambition", "Elition", "Ingenia", "Intera", "Panorama"),
        *("Brilliance", "Gemini", "Ingenuity", "iCT", "IQon", "Mx8000"),
    ),
    "Toshiba": _TOSHIBA_FAMILIES,
    "Canon": _TOSHIBA_FAMILIES,
    "Hitachi": _HITACHI_FAMILIES,
    "Fujifilm": _HITACHI_FAMILIES,
    "United Imaging": ("uMR", "uCT"),
}
# Nominal field strengths in T, and the relative tolerance of a header.
_FIELD_STRENGTHS = (0.064, 0.2, 0.3, 0.35, 0.4, 0.55, 0.7, 1.0, 1.2, 1.5, 3.0, 7.0)
_FIELD_TOLERANCE = 0.08
_GAUSS_PER_TESLA = 10_000
_NO_AGENT = frozenset({"none", "no", "n", "0", "without", "native", "no contrast", "unenhanced"})
_KERNELS = {
    # GE
    "soft": "soft",
    "standard": "standard",
    "stnd": "standard",
    "detail": "sharp",
    "chest": "sharp",
    "bone": "sharp",
    "boneplus": "sharp",
    "lung": "sharp",
    "edge": "sharp",
    "ultra": "sharp",
    "sharp": "sharp",
    "smooth": "soft",
    # Philips
    "a": "soft",
    "b": "standard",
    "c": "standard",
    "d": "sharp",
    "e": "sharp",
    "l": "sharp",
    "ya": "sharp",
    "yb": "sharp",
    "yc": "sharp",
    "yd": "sharp",
}
# Siemens: body part and type, then the sharpness: B30f, Br40d, Hr38, I31f.
_SIEMENS_KERNEL = re.compile(r"[abdhirtuq][a-z]?(\d\d)[a-z]{0,2}")
_SIEMENS_SOFT, _SIEMENS_STANDARD = 30, 49
# Canon and Toshiba number by purpose: body with and without beam hardening correction, brain, bone, lung.
_CANON_KERNEL = re.compile(r"fc(\d\d)")
_CANON_SOFT, _CANON_STANDARD = 9, 29


def read_acquisition(volume: Volume) -> Acquisition:
    """Read the facts about the acquisition from the modality, tags and grid of a volume.

    Free text is only compared with lists of known words; unknown text becomes None, so that no text of the header is
    passed on.
    """
    tags = volume.tags
    modality = volume.modality if volume.modality in MODALITIES else ""
    vendor = _vendor(_text(tags, "Manufacturer"))
    agent = _contrast_agent(_text(tags, "ContrastBolusAgent"))
    axis = slice_axis(volume)
    # Images without a scale have a nominal spacing of 1 mm.
    has_scale = volume.shape[axis] > 1 or bool(tags) or any(size != 1.0 for size in volume.spacing)
    distance = volume.spacing[axis] if volume.shape[axis] > 1 else None
    return Acquisition(
        modality=modality,
        sequence=_sequence(tags) if modality == "MR" else None,
        phase="native" if modality == "CT" and agent is False else None,
        vendor=vendor,
        model_family=_family(vendor, _text(tags, "ManufacturerModelName")),
        field_strength=_field_strength(_number(tags, "MagneticFieldStrength")) if modality == "MR" else None,
        kvp=_between(_number(tags, "KVP"), 20, 200) if modality == "CT" else None,
        kernel=_kernel(_text(tags, "ConvolutionKernel")) if modality == "CT" else None,
        contrast_agent=agent,
        slice_thickness=_between(_number(tags, "SliceThickness"), 0.01, 100) or distance,
        pixel_spacing=SliceFrame(volume.affine, volume.shape, axis).spacing_rc if has_scale else None,
    )


def _text(tags: Mapping[str, str | float], keyword: str) -> str:
    return str(tags.get(keyword, "")).strip().lower()


def _number(tags: Mapping[str, str | float], keyword: str) -> float | None:
    try:
        number = float(tags[keyword])
    except (KeyError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _between(number: float | None, low: float, high: float) -> float | None:
    return number if number is not None and low <= number <= high else None


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<![a-z]){re.escape(word.lower())}(?![a-z])", text) is not None


def _vendor(text: str) -> str | None:
    return next((name for word, name in _VENDORS.items() if _has_word(text, word)), None)


def _family(vendor: str | None, model: str) -> str | None:
    return next((family for family in _FAMILIES.get(vendor or "", ()) if _has_word(model, family)), None)


def _contrast_agent(text: str) -> bool | None:
    """Interpret the tag; an empty value means unknown, since headers often omit it."""
    return None if not text else text not in _NO_AGENT


def _field_strength(number: float | None) -> float | None:
    if number is None:
        return None
    tesla = number / _GAUSS_PER_TESLA if number >= 100 else number
    nearest = min(_FIELD_STRENGTHS, key=lambda nominal: abs(nominal - tesla) / nominal)
    return nearest if abs(nearest - tesla) <= _FIELD_TOLERANCE * nearest else None


def _kernel(text: str) -> str | None:
    name = text.split("\\")[0].strip()
    if match := _SIEMENS_KERNEL.fullmatch(name):
        sharpness = int(match[1])
        return "soft" if sharpness <= _SIEMENS_SOFT else "standard" if sharpness <= _SIEMENS_STANDARD else "sharp"
    if match := _CANON_KERNEL.fullmatch(name):
        number = int(match[1])
        return "soft" if number <= _CANON_SOFT else "standard" if number <= _CANON_STANDARD else "sharp"
    return _KERNELS.get(name)


def _sequence(tags: Mapping[str, str | float]) -> str | None:
    """Infer the sequence from its name and its times in ms."""
    name = _text(tags, "SequenceName")
    if re.match(r"\*?(ep_b\d|ep2d_diff|re_b\d|dwi)", name):
        return "DWI"
    if "tof" in name:
        return "TOF"
    repetition, echo = _number(tags, "RepetitionTime"), _number(tags, "EchoTime")
    inversion = _number(tags, "InversionTime") or 0.0
    kinds = set(_text(tags, "ScanningSequence").split("\\"))
    variants = set(_text(tags, "SequenceVariant").split("\\"))
    if repetition is None or echo is None or repetition <= 0 or echo < 0:
        return None
    if "ir" in kinds or inversion > 0:
        if inversion >= 1400 and echo >= 60:
            return "FLAIR"
        if 50 <= inversion <= 350 and repetition >= 1500 and "gr" not in kinds:
            return "STIR"
        if echo < 30:
            return "T1"
    if "ep" in kinds:
        return None  # diffusion, perfusion or functional MR, which times do not distinguish
    if "gr" in kinds or (not kinds & {"se", "ir"} and repetition < 50):
        if "ss" in variants and "sp" not in variants and repetition < 10:
            return "bSSFP"
        return "T2*" if echo >= 12 else "T1"
    if repetition < 1300 and echo < 40:
        return "T1"
    if repetition >= 1300 and echo >= 60:
        return "T2"
    if repetition >= 1300 and echo < 50:
        return "PD"
    return None
