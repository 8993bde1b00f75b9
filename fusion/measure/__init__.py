"""Retrieval metrics, the sweep over data, method, dim and precision, and its report."""
