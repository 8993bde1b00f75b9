"""Queries without torch: an exported model's vectors of a few texts, in a fraction of a second."""
