"""The web chat API of docs/reference/webchat-api.md in memory, for the widget's browser tests."""
