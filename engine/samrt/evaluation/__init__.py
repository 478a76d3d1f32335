"""Accuracy of a promptable model on images with known masks, by published protocols.

:func:`samrt.evaluation.runner.evaluate` runs a data set and keeps one line per target on the
disk; :func:`samrt.evaluation.summary.summarise` turns the lines into figures with confidence
intervals; :func:`samrt.evaluation.compare.compare` sets two runs side by side. ``samrt eval`` is
their command. Distances and clicks need SciPy (extra ``eval``), NIfTI needs nibabel.

The protocol is that of COSMOS 1050K (Huang et al. 2024, arXiv 2304.14660).
"""
