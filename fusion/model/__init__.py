"""One sentence-transformers model: its modules, its folder, its card."""
