"""The commands that need more than the profile; each is loaded when it is asked for."""
