"""Retrieval by judged queries: every width and precision, exported models, budgets."""
