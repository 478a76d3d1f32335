"""The model families that samrt exports, and what tells the exporter about each."""

from samrt_export.families.base import EMBEDDING, Family, Frame, Network
from samrt_export.families.registry import FAMILIES, family_named

__all__ = ["EMBEDDING", "FAMILIES", "Family", "Frame", "Network", "family_named"]
