"""What support needs to see, and nothing that it must not."""
