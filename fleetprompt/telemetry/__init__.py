"""What the platform tells its operators of itself: metrics, spans, and whether work moves."""
