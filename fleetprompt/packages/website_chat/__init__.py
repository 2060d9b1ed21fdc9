"""Website chat: visitors of a customer's website, answered by the team."""
