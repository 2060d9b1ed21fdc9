"""Notices of approvals: telling people in Mattermost that something waits for their word."""
