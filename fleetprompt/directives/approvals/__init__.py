"""Approvals: a person's word, bound to exactly what was shown, before a directive may run."""
