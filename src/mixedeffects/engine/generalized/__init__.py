"""Generalized linear mixed models: the Laplace criterion, its optimum, and what is known there."""
