"""What every room may use: arrays, files, options, caches."""
