"""Packages: what can be installed. One folder each; a folder with a manifest is a package."""
