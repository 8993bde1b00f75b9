"""Texts become embeddings: named frozen encoders, data sets, embeddings kept on disk."""
