"""Codes of structures: what a label's name means in SNOMED CT, as the structures of DICOM objects have to say.

The table of names and codes is DICOM's own, as pydicom has it: the structures in the context groups of `GROUPS`, each
under its keyword ("InferiorVenaCava" is found by "inferior vena cava" and by "inferior_vena_cava"). `SYNONYMS` adds
what people call them otherwise. "left" and "right", before or behind the name, become a modifier where DICOM has no
structure of the whole name. A lesion may have an organ before it ("liver lesion"), which becomes its region. Any other
name is a "Tissue"; the name itself is the segment's label in any case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

TISSUE = codes.cid7150.Tissue
ABNORMAL = codes.cid7150.MorphologicallyAbnormalStructure
# DICOM's groups of structures (PS3.16), and the category of each group.
GROUPS = (
    (codes.cid7192, codes.cid7150.AnatomicalStructure),
    (codes.cid7194, ABNORMAL),
    (codes.cid7191, TISSUE),
    (codes.cid7193, codes.cid7150.PhysicalObject),
    (codes.cid7197, codes.cid7150.BodySubstance),
)
# In lower case and in the singular -> DICOM's keyword.
SYNONYMS = {
    "adrenal": "AdrenalGland",
    "fat": "BodyFat",
    "gall bladder": "Gallbladder",
    "haemorrhage": "Hemorrhage",
    "ivc": "InferiorVenaCava",
    "large bowel": "LargeIntestine",
    "lung lower lobe": "LowerLobeOfLung",
    "lung upper lobe": "UpperLobeOfLung",
    "metastasis": "NeoplasmSecondary",
    "oedema": "Edema",
    "oesophagus": "Esophagus",
    "small bowel": "SmallIntestine",
    "thyroid gland": "Thyroid",
    "tumor": "Neoplasm",
    "tumour": "Neoplasm",
    "urinary bladder": "Bladder",
}
# In none of the groups, yet the usual name of a finding without a diagnosis.
LESION = "lesion"
SIDES = {"left": codes.cid244.Left, "right": codes.cid244.Right}


@dataclass(frozen=True)
class Structure:
    """A coded structure.

    Attributes:
        code: code of the structure.
        category: code of its category.
        side: side of the patient; None where the code says it, or the name does not.
        region: the organ that a lesion lies in; None where the name does not say one.
    """

    code: Code
    category: Code
    side: Code | None = None
    region: Structure | None = None

    def concept(self) -> CodedConcept:
        """The code with its side, as the type of a segment."""
        return self._with_side("SegmentedPropertyTypeModifierCodeSequence")

    def regions(self) -> list[CodedConcept] | None:
        """The region with its side; None if there is none."""
        return None if self.region is None else [self.region._with_side("AnatomicRegionModifierSequence")]

    def _with_side(self, sequence: str) -> CodedConcept:
        concept = CodedConcept.from_code(self.code)
        if self.side is not None:
            setattr(concept, sequence, [CodedConcept.from_code(self.side)])
        return concept


def find_structure(name: str) -> Structure:
    """Return the structure that a label's name means, a tissue if it is none that DICOM knows.

    >>> kidney = find_structure("left kidney")
    >>> kidney.code.meaning, kidney.category.meaning, kidney.side.meaning
    ('Kidney', 'Anatomical Structure', 'Left')
    """
    words = re.sub(r"[\W_]+", " ", name).lower().split()
    structure = _find(words)
    for start in range(1, len(words)):
        lesion, place = _find(words[start:]), _find(words[:start])
        # Other words before a lesion may well say that there is none.
        if structure is None and lesion is not None and lesion.category == ABNORMAL and place is not None:
            structure = replace(lesion, region=place)
    return structure or Structure(TISSUE, TISSUE)


def _find(words: Sequence[str]) -> Structure | None:
    found = _find_without_side(words)
    for side, rest in ((words[0], words[1:]), (words[-1], words[:-1])) if words else ():
        if found is None and side in SIDES and (structure := _find_without_side(rest)) is not None:
            found = replace(structure, side=SIDES[side])
    return found


def _find_without_side(words: Sequence[str]) -> Structure | None:
    plural = " ".join(words)
    for phrase in (plural, plural.removesuffix("s")):
        if phrase == LESION:
            return Structure(codes.SCT.Lesion, ABNORMAL)
        keyword = SYNONYMS.get(phrase) or "".join(word.capitalize() for word in phrase.split())
        for group, category in GROUPS:
            # pydicom has no keywords as such for what is in a group twice, with different codes.
            if (code := getattr(group, keyword, None)) is not None:
                return Structure(code, category)
    return None
