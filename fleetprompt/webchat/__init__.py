"""Website chat: sites, visitors' conversations and messages, tokens and limits."""
