"""A fit as summary, tidy tables, tables of estimates, and an HTML report."""
