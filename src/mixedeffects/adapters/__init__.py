"""What other packages ask a fitted model for; none of them is needed to use this one."""
