"""What a segment shows, in coded terms (SNOMED CT, PS3.16 CID 7150 to 7166)."""

from __future__ import annotations

from dataclasses import dataclass

from samrt.errors import OptionError

__all__ = ["TERMS", "Code", "Term", "find_term"]


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept: value, scheme (``SCT``, ``DCM``, ``99...``), meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Term:
    """What a segment shows: a label for people, its category and its type."""

    label: str
    category: Code
    kind: Code


_ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
_ALTERED = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_STRUCTURES = {
    "tissue": ("85756007", "Tissue"),
    "aorta": ("15825003", "Aorta"),
    "bladder": ("89837001", "Bladder"),
    "bone": ("272673000", "Bone"),
    "brain": ("12738006", "Brain"),
    "breast": ("76752008", "Breast"),
    "gallbladder": ("28231008", "Gallbladder"),
    "heart": ("80891009", "Heart"),
    "kidney": ("64033007", "Kidney"),
    "liver": ("10200004", "Liver"),
    "lung": ("39607008", "Lung"),
    "pancreas": ("15776009", "Pancreas"),
    "prostate": ("41216001", "Prostate"),
    "spleen": ("78961009", "Spleen"),
    "stomach": ("69695003", "Stomach"),
    "uterus": ("35039007", "Uterus"),
}
_ALTERATIONS = {
    "cyst": ("367643001", "Cyst"),
    "lesion": ("52988006", "Lesion"),
    "mass": ("4147007", "Mass"),
    "neoplasm": ("108369006", "Neoplasm"),
    "nodule": ("27925004", "Nodule"),
}
TERMS: dict[str, Term] = {
    **{k: Term(k, _ANATOMY, Code(v, "SCT", m)) for k, (v, m) in _STRUCTURES.items()},
    **{k: Term(k, _ALTERED, Code(v, "SCT", m)) for k, (v, m) in _ALTERATIONS.items()},
}
"""Name -> term; ``tissue`` says the least and is the default."""


def find_term(text: str) -> Term:
    """A name of :data:`TERMS`, or ``VALUE:SCHEME:MEANING`` of an anatomical structure.

    Raises:
        OptionError: neither.
    """
    if text.lower() in TERMS:
        return TERMS[text.lower()]
    parts = [part.strip() for part in text.split(":")]
    if len(parts) == 3 and all(parts):
        value, scheme, meaning = parts
        if len(value) <= 16 and len(scheme) <= 16 and len(meaning) <= 64:
            return Term(meaning, _ANATOMY, Code(value, scheme, meaning))
    raise OptionError(
        f"unknown label {text!r}: expected one of {', '.join(TERMS)}, or VALUE:SCHEME:MEANING "
        "with at most 16, 16 and 64 characters"
    )
