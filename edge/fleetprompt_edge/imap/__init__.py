"""Reading mail from Bridge over IMAP, without changing anything there."""
