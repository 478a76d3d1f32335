"""The tiny model: data, training and export."""
