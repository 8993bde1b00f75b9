"""Files that are one document each, by their kinds."""
