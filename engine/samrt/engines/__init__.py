"""Engines: model files compiled for one GPU runtime, kept in a cache and never trusted unseen.

``api`` finds the runtime, ``builder`` compiles one ONNX file, ``cache`` keeps the result under a
key of everything it depends on, ``bundles`` does this for a whole bundle, ``memory`` is the one
gate to the GPU's memory, ``execution`` runs an engine, ``triton`` writes a model repository.
The runtime's module is handed in everywhere; nothing here imports one on its own.
"""
