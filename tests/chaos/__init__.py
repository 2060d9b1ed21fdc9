"""Kill tests: what was acknowledged is there, and nothing is there twice."""
