"""Volumes: NIfTI files and DICOM series in, planes of them, and masks put back on their grid."""

from __future__ import annotations
