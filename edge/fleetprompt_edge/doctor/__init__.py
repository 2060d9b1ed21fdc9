"""What may be wrong, one check after the other, each with its cause and how to mend it."""
