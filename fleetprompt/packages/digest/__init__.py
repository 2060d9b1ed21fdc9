"""The daily digest, whichever way it goes: what it counts, what it says, and what follows from it.

No package of its own. ``mattermost_daily_ops_digest`` and ``email_daily_digest`` each say what kind of
digest they are (``kind.DigestKind``) and bring the way that a written digest takes.
"""
