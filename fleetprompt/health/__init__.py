"""Whether the platform is well, and telling its operators when it is not."""
