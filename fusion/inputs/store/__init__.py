"""Embeddings on disk, never computed twice."""
