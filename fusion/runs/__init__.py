"""The hall: a run, from texts to fitted compressors, and its folder on disk."""
