"""Shards are searched: exactly, streaming by, in whatever precision they were written."""
