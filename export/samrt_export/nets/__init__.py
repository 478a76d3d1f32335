"""The networks of the model families as torch modules, with the key names of their checkpoints."""
