"""DICOM images in: header under a size and type policy, pixels, and the mapping to grey levels.

Importing this package loads nothing; pydicom (extra ``dicom``) comes with the first file.
"""

from __future__ import annotations
