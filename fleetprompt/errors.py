"""What can go wrong, as one closed list of problem types (RFC 9457).

Each class has an ``id`` (the last part of the problem's ``type`` URI), an HTTP ``status`` and a
``title``; the message says what was wrong, where, and how to mend it. The HTTP layer renders
them; the command line prints them. ``docs/reference/problems.md`` describes each by its id, and a
test fails if one is missing there.
"""

from typing import Any, ClassVar, Literal

# Why something outside failed; the same words in directives, executions, the ledger and signals.
ErrorKind = Literal["auth", "network", "rate_limit", "validation", "unknown"]


class FleetPromptError(Exception):
    """Base of all errors that are told to a person or a program.

    ``errors`` is a list of ``{"pointer": "/data/x", "detail": "…"}`` (RFC 6901 pointers into the
    request body); ``retry_after`` is in seconds.
    """

    id: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str = "",
        *,
        errors: list[dict[str, Any]] | None = None,
        retry_after: float | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.errors = errors or []
        self.retry_after = retry_after
        self.extra = extra


class MalformedError(FleetPromptError):
    """The body is not what its content type says."""

    id, status, title = "malformed", 400, "The request could not be read"


class UnauthenticatedError(FleetPromptError):
    """No key, or one that is unknown, expired or revoked."""

    id, status, title = "unauthenticated", 401, "A valid API key is needed"


class ForbiddenError(FleetPromptError):
    """The key is good, but its scopes or its role do not allow this."""

    id, status, title = "forbidden", 403, "This key may not do that"


class NotFoundError(FleetPromptError):
    """It does not exist in this tenant."""

    id, status, title = "not-found", 404, "Not found"


class MethodNotAllowedError(FleetPromptError):
    """The path exists, the method does not."""

    id, status, title = "method-not-allowed", 405, "This path does not offer that method"


class ConflictError(FleetPromptError):
    """The state of the thing does not allow this now."""

    id, status, title = "conflict", 409, "The current state does not allow this"


class StaleLeaseError(ConflictError):
    """The attempt has lost its lease; another one may be at work."""

    id, status, title = "stale-lease", 409, "The lease of this attempt is gone"


class TooLargeError(FleetPromptError):
    """A body, batch or signal over its limit."""

    id, status, title = "too-large", 413, "The request is too large"


class UnsupportedMediaTypeError(FleetPromptError):
    """A content type that is not taken here."""

    id, status, title = "unsupported-media-type", 415, "This content type is not taken here"


class InvalidError(FleetPromptError):
    """Readable, but against the rules; ``errors`` points at each place."""

    id, status, title = "invalid", 422, "The request is not valid"


class SecretFoundError(InvalidError):
    """Something that looks like a secret where none may be stored."""

    id, status, title = "secret-found", 422, "The signal holds what looks like a secret"


class IdempotencyMismatchError(InvalidError):
    """The same idempotency key with other content."""

    id, status, title = "idempotency-mismatch", 422, "This idempotency key was used differently"


class RateLimitedError(FleetPromptError):
    """Too often; ``Retry-After`` says when again."""

    id, status, title = "rate-limited", 429, "Too many requests"


class OverloadedError(FleetPromptError):
    """The process's bounded queue is full."""

    id, status, title = "overloaded", 503, "Too busy to take this now"


class DatabaseUnavailableError(FleetPromptError):
    """PostgreSQL does not answer; nothing was stored, or nobody can say whether it was."""

    id, status, title = "database-unavailable", 503, "The database does not answer"


class ProvisioningUnavailableError(FleetPromptError):
    """This process may not create or delete tenants."""

    id, status, title = "provisioning-unavailable", 503, "This process may not create tenants"


class WebchatError(FleetPromptError):
    """Base of what only the website chat answers; see docs/reference/webchat-api.md."""


class TokenError(WebchatError):
    """Base of the refusals of a visitor's token."""

    status = 401


class TokenRequiredError(TokenError):
    """A request of a visitor without a token."""

    id, title = "token-required", "A visitor's token is needed"


class TokenInvalidError(TokenError):
    """A token that was not made here, or was changed."""

    id, title = "token-invalid", "This token does not hold"


class TokenExpiredError(TokenError):
    """A token whose time is over."""

    id, title = "token-expired", "This token has expired"


class TokenKeyUnknownError(TokenError):
    """A token under a key that the site has no more."""

    id, title = "token-key-unknown", "This token was signed with a key that is gone"


class TokenSiteMismatchError(TokenError):
    """A token of another site."""

    id, title = "token-site-mismatch", "This token belongs to another site"


class TokenOriginMismatchError(TokenError):
    """A token that was given to a page of another origin."""

    id, title = "token-origin-mismatch", "This token belongs to another origin"


class OriginNotAllowedError(WebchatError):
    """The page that asks is not on the site's list."""

    id, status, title = "origin-not-allowed", 403, "This origin is not allowed to use the chat"


class SiteDisabledError(WebchatError):
    """The site is switched off."""

    id, status, title = "site-disabled", 403, "The chat of this site is switched off"


class VisitorExpiredError(WebchatError):
    """The visitor's secret is too old, was not made here, or was erased."""

    id, status, title = "visitor-expired", 403, "This visitor's secret no longer holds"


class ConsentRequiredError(WebchatError):
    """The site asks for consent and there is none."""

    id, status, title = "consent-required", 403, "The visitor's consent is needed"


class ConsentStaleError(WebchatError):
    """Consent was given to another version; ``consent`` holds the present one."""

    id, status, title = "consent-stale", 409, "The visitor consented to another version"


class ChallengeRequiredError(WebchatError):
    """Much comes from here; ``challenge`` says what to do before trying again."""

    id, status, title = "challenge-required", 403, "A challenge must be answered first"


class IdentityInvalidError(WebchatError):
    """An identity token that does not hold."""

    id, status, title = "identity-invalid", 403, "This identity token does not hold"


class IdentityExpiredError(WebchatError):
    """An identity token whose time is over."""

    id, status, title = "identity-expired", 403, "This identity token has expired"


class ConversationClosedError(WebchatError):
    """A new message to a conversation that is over."""

    id, status, title = "conversation-closed", 409, "This conversation is closed"


class MessageMismatchError(WebchatError):
    """The same ``client_message_id`` with another text."""

    id, status, title = "message-mismatch", 409, "This message was stored with another text"


def every_problem() -> list[type[FleetPromptError]]:
    """All problem types, the base (``internal``) included."""
    found: list[type[FleetPromptError]] = []
    waiting: list[type[FleetPromptError]] = [FleetPromptError]
    while waiting:
        current = waiting.pop(0)
        found.append(current)
        waiting.extend(current.__subclasses__())
    return found
