"""What a linear mixed model answers, in files by purpose."""
