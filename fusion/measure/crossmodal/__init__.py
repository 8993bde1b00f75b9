"""Pictures and texts find each other: measured both ways."""
