"""Responses drawn from a fit."""
