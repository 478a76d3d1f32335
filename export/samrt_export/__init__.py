"""Export and training side of samrt."""
