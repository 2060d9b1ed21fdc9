"""From a mail to the signal that tells of it, with no more of the mail than the profile allows."""
