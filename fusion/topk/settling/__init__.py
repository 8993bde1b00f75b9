"""What settles the order of float64 among what an engine proposes."""
