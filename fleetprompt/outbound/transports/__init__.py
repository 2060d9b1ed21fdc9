"""One folder for each way out: what it sends, how it reads the answer, how it is checked."""
