"""What a generalized linear mixed model answers, in files by purpose."""
