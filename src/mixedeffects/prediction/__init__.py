"""Predictions, planned designs and power."""
