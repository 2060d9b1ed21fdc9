"""The website chat over HTTP: what visitors' widgets call, and what the team calls."""
