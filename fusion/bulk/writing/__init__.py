"""Shards, their codes, their journal and manifest."""
