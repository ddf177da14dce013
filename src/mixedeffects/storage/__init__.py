"""Fits as pickles, as JSON, and without their data."""
