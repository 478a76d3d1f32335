"""Objects derived from scanners' files: DICOM SEG, RTSTRUCT, secondary capture, NIfTI."""

from __future__ import annotations
