"""Verification records in a bundle's manifest."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from samrt.bundle import MANIFEST_NAME, Bundle
from samrt.errors import BundleError
from samrt.imaging.write import write_files
from samrt.manifest import parse_manifest
from samrt.verification.record import VerificationRecord
from samrt_export.verify.crop import CropDeviation

__all__ = ["parity_with", "store_record"]

_OTHERS = "other_precisions"
_FORMS = "other_forms"
_CROP = "crop_padding"


def parity_with(
    parity: dict[str, Any] | None, record: dict[str, Any], default_precision: str
) -> dict[str, Any]:
    """The manifest's ``parity`` entry with one more record.

    The record of the bundle's default precision lies at its top, those of other precisions under
    ``other_precisions``, those of graphs for one runtime under ``other_forms``; all but the one
    that is replaced are kept as they are, and so is the figure of what ``--crop-padding`` costs.
    """
    old = parity or {}
    forms = dict(old[_FORMS]) if isinstance(old.get(_FORMS), dict) else {}
    form = record.get("candidate", {}).get("form", "canonical")
    if form != "canonical":
        kept = forms.get(form)
        forms[form] = {**(kept if isinstance(kept, dict) else {}), record["precision"]: record}
        return {**old, _FORMS: forms}
    if _CROP in old and _CROP not in record:
        record = {**record, _CROP: old[_CROP]}
    others = old.get(_OTHERS)
    kept = dict(others) if isinstance(others, dict) else {}
    if record["precision"] == default_precision:
        others = {_OTHERS: kept} if kept else {}
        return {**record, **others, **({_FORMS: forms} if forms else {})}
    kept[record["precision"]] = record
    return {**old, _OTHERS: kept}


def store_record(
    path: str | PathLike[str], record: VerificationRecord, crop: CropDeviation | None = None
) -> Bundle:
    """Write a record into a bundle's manifest: the new one is there completely, or the old one.

    Args:
        path: the bundle folder.
        record: what is stored; an older record of the same precision is replaced.
        crop: what leaving the padding out costs.

    Returns:
        The bundle, opened again; its id does not depend on records.

    Raises:
        BundleError: the folder is no intact bundle, the record is that of other model files, or
            the bundle has no such precision.
        OutputError: the manifest cannot be written.
    """
    bundle = Bundle.open(path)
    if record.candidate.get("model_id") != bundle.model_id:
        raise BundleError(
            f"this record is of {record.candidate.get('model_id')}, the bundle at {path} is "
            f"{bundle.model_id}: verify it again"
        )
    if record.precision not in bundle.precisions():
        raise BundleError(f"the bundle at {path} has no precision {record.precision!r}")
    target = Path(path) / MANIFEST_NAME
    document = json.loads(target.read_text("utf-8"))
    entry = record.as_dict()
    if crop is not None:
        entry[_CROP] = crop.as_dict()
    document["parity"] = parity_with(document.get("parity"), entry, bundle.manifest.precision)
    parse_manifest(document, where=str(target))
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_files({target: f"{text}\n".encode()}, force=True)
    return Bundle.open(path)
