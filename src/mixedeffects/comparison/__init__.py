"""Models beside each other, and how much one explains."""
