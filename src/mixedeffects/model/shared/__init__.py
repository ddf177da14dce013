"""What every fitted model answers alike, whatever the distribution of its response."""
