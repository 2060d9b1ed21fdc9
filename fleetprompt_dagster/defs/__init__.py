"""Leaf definitions: one folder for each domain, whose module ``definitions`` lists what it offers."""
