"""Tests, degrees of freedom and conditional modes of a fitted model."""
