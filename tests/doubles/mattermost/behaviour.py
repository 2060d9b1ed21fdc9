"""What the stand-in can be told to do, as one typed set of switches (contract table A10)."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

Fault = Literal[
    "none",
    "drop_before_save",
    "drop_after_save",
    "save_after_drop",
    "reset_after_save",
    "stall_after_save",
    "error_after_save",
    "endless_body",
    "dripping_body",
]
Proxy = Literal[
    "none",
    "redirect_to_https",
    "html_200",
    "html_403",
    "html_404",
    "html_502",
    "html_503",
    "html_504",
]


@dataclass
class Behaviour:
    """Every switch; the defaults are a healthy current server with default settings."""

    generation: Literal["old", "new"] = "new"
    """Error ids up to version 8, or the current ones whose message repeats the hook's id."""
    developer_mode: bool = False
    """Fills `detailed_error`, which production servers leave empty."""
    hardened_mode: bool = False
    """Answers every 5xx with an empty id and a bare message."""
    subpath: str = ""
    """Path of SiteURL, such as `/mm`; requests outside are answered 302."""

    webhooks_enabled: bool = True
    username_override: bool = False
    icon_override: bool = False
    silent_supported: bool = True
    hook_deleted: bool = False
    hook_channel_locked: bool = False
    hook_bound_channel_gone: bool = False
    hook_owner_missing: bool = False
    hook_owner_reads_private: bool = True
    town_square_read_only: bool = False
    owner_may_mention_channel: bool = True

    max_payload_bytes: int = 300_000
    max_post_runes: int = 16_383

    rate_limited: bool = False
    rate_limit_requests: int | None = None
    """How many requests are limited, counted down; unset: all of them."""
    retry_after_seconds: int = 7

    proxy: Proxy = "none"
    fault: Fault = "none"
    fault_requests: int | None = None
    """How many writing requests the fault hits, counted down; unset: all of them."""
    fail_on_split: int | None = None
    """Number of the split, from 1, at which saving fails."""
    delay_seconds: float = 0.0
    """Wait before any answer."""
    save_seconds: float = 0.0
    """Wait between taking a REST post in hand and saving it; a twin sees it pending."""
    stall_seconds: float = 30.0
    late_save_seconds: float = 1.0
    """After `save_after_drop` has cut the connection, the post is saved this much later."""

    personal_tokens_enabled: bool = True
    token_expired: bool = False
    token_in_error: bool = False
    """Database trouble during authentication: 500 whose message holds the raw token."""
    second_factor_enforced: bool = False
    files_enabled: bool = True
    may_upload: bool = True
    """Whether the role of the channel's members has the permission `upload_file`."""
    max_file_bytes: int = 100 * 1024 * 1024
    upload_fault: Fault = "none"
    """What happens to an upload, as `fault` to a post."""
    upload_fault_requests: int | None = None
    """How many uploads it hits, counted down; unset: all of them."""
    nodes: int = 1
    """Application servers behind the balancer, asked in turn; they do not share pending posts."""
    replica_lag_seconds: float = 0.0
    """Reads do not see what changed within this time."""
    replicas: int = 1
    """Databases that are read in turn; only the first of them lags."""
    bot_is_member: bool = True
    bot_may_read: bool = True
    clock_offset_seconds: float = 0.0
    """Moves the server's clock, so that a time to live passes without waiting."""

    def change(self, values: dict[str, Any]) -> None:
        """Set switches by name.

        Raises ``ValueError`` with the switch's name for one that does not exist, has the wrong
        type or a value outside its list; nothing is changed then.
        """
        hints = get_type_hints(type(self))
        names = {field.name for field in fields(self)}
        for name, value in values.items():
            if name not in names:
                raise ValueError(f"unknown switch: {name}")
            if not _fits(value, hints[name]):
                raise ValueError(f"wrong value for switch: {name}")
        for name, value in values.items():
            setattr(self, name, value)


def _fits(value: Any, hint: Any) -> bool:
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    choices = get_args(hint)
    if type(None) in choices:
        return value is None or _fits(value, int)
    return value in choices
