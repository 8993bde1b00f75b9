"""Texts and retrieval data as they come: files, folders, packages, the hub."""
