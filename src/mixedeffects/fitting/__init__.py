"""From a frame to a fit, and from a fit to related ones."""
