"""Embeddings become one nested space, and codes of it. Knows embeddings, never texts."""
