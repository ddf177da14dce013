"""What shows whether a model is the right one: residuals, leverage, influence, variogram."""
