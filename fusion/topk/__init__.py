"""Nested cosine top-k: float64 truth, contract, engines. Knows embeddings, never texts."""
