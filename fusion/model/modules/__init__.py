"""What travels in an exported folder: the modules, and what they need, one file each."""
