"""Models on tables that stay in their engine: expressions, queries, and the sums they bring."""
