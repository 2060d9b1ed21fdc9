"""Directives: the only way to cause a side effect."""
