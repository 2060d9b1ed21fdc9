"""Mattermost Daily Ops Digest: what happened since the last one, worst first, in a channel."""
