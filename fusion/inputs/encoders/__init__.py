"""Frozen encoders: by name, folder, hub id or file; what they are, and what they cut."""
