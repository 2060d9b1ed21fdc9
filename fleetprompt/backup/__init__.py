"""One tenant in one file: its rows, its lake files, and what of the platform's tables is about it."""
