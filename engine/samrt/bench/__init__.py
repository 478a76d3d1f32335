"""Measuring a model on this machine: ``samrt bench``.

Every run is a process of its own (:mod:`samrt.bench.worker`): first one that proves that the engine
answers rightly, then one that measures it and nothing else. What comes out is a JSON document with
every sample; tables, plots and comparisons are made from it.
"""
