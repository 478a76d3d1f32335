"""Answers as the CVPR challenge wants them: one ``.npz`` with ``segs`` per file of the data set."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samrt.errors import OptionError
from samrt.evaluation.cases import answer_of
from samrt.evaluation.dataset import Dataset, Target
from samrt.evaluation.formats.npz import NpzDataset, read_arrays
from samrt.evaluation.journal import read_records
from samrt.imaging.write import write_files

__all__ = ["write_segs"]


def write_segs(
    dataset: Dataset, targets: Sequence[Target], journal: Path, folder: Path
) -> list[Path]:
    """Write ``segs``, uint16 in the shape of ``gts``: the label whose box was asked, else 0.

    Where answers of two boxes overlap the larger label wins, as in the challenge's baseline, which
    paints one box after the other.

    Raises:
        OptionError: the data are not of that kind, or S5 was not asked.
        OutputError: a file cannot be written.
    """
    if not isinstance(dataset, NpzDataset):
        raise OptionError(f"--segs is for npz data, {dataset.path} is of the kind {dataset.kind}")
    by_key = {t.key: t for t in targets}
    answers = (r for r in read_records(journal) if r["key"] in by_key and "error" not in r)
    written = []
    # Records lie in the order of the targets, so those of one file follow each other.
    for name, records in groupby(answers, key=lambda r: by_key[r["key"]].mask):
        masks = []
        for record in records:
            if "S5" not in record["strategies"]:
                raise OptionError("--segs needs the answers of S5: add it to --strategies")
            masks.append((by_key[record["key"]], answer_of(record, "S5")))
        path = folder / name
        write_files({path: _npz(dataset.path / name, masks)}, force=True)
        written.append(path)
    return written


def _npz(source: Path, answers: list[tuple[Target, NDArray[np.bool_]]]) -> bytes:
    labels = read_arrays(source)[1]
    segs = np.zeros(labels.shape, np.uint16)
    for target, mask in sorted(answers, key=lambda pair: pair[0].label):
        segs[target.slice or 0][mask] = target.label
    with np.load(source, allow_pickle=False) as file:
        flat = file["gts"].ndim == 2
    buffer = BytesIO()
    np.savez_compressed(buffer, segs=segs[0] if flat else segs)
    return buffer.getvalue()
