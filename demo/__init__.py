"""The whole platform on one machine, driven through its doors: ``make demo``."""
