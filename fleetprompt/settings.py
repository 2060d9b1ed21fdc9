"""Every setting of the platform, read from the environment as ``FLEETPROMPT_<NAME>``.

A setting is documented in ``docs/reference/settings.md``; a test fails if one is missing there.
"""

from decimal import Decimal
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fleetprompt.lake.places import LakePath, place_of


class Settings(BaseSettings):
    """What an operator may configure. Unset means: one machine, embedded PostgreSQL, loopback."""

    model_config = SettingsConfigDict(env_prefix="FLEETPROMPT_", extra="ignore", frozen=True)

    # Where things are kept
    state_dir: Path = Field(
        default=Path(".fleetprompt"),
        description="Folder for the embedded database, the lake, logs and a generated master key.",
    )
    lake_dir: Path | str | None = Field(
        default=None,
        description=(
            "Folder of the Parquet lake, or its address in object storage, such as `s3://bucket/lake`. "
            "Default: `lake` in the state folder."
        ),
    )

    # PostgreSQL
    database_url: SecretStr | None = Field(
        default=None,
        description=(
            "PostgreSQL 15 or newer as `postgresql://owner:…@host/db`, with the right to create "
            "roles and schemas. Unset: embedded PostgreSQL 18 in the state folder."
        ),
    )
    app_database_url: SecretStr | None = Field(
        default=None,
        description=(
            "The application's own login, which has no right on any tenant's schema. Unset: "
            "derived from the database URL and the master key."
        ),
    )
    dagster_database_url: SecretStr | None = Field(
        default=None,
        description=(
            "Dagster's own database. Unset: `<database>_dagster` on the same server. The scheme "
            "becomes `postgresql+psycopg2`, whatever is given."
        ),
    )
    database_pool_size: int = Field(default=8, ge=1, le=100, description="Connections a process.")
    database_pool_timeout: float = Field(
        default=5.0, gt=0, description="Seconds to wait for a connection before 503 is answered."
    )
    database_connection_lifetime: int = Field(
        default=1800,
        ge=10,
        description="Seconds after which a connection is replaced; bounds a backend's memory.",
    )

    celery_broker: SecretStr | None = Field(
        default=None,
        description=(
            "Redis or RabbitMQ that hands the steps of Dagster's runs to Celery workers, as "
            "`redis://host:6379/0`. Unset: each run does its own steps."
        ),
    )

    # Directives
    directive_tenant_concurrency: int = Field(
        default=16,
        ge=1,
        le=1000,
        description=(
            "Directives of one tenant that the platform works on at once, over all its workers; the rest "
            "of the places are for others."
        ),
    )

    # Keys
    master_key: SecretStr | None = Field(
        default=None, description="32 bytes in base64: encrypts the tenants' data keys."
    )
    master_key_file: Path | None = Field(
        default=None,
        description="File with the master key. Default: `master.key` in the state folder.",
    )
    master_key_source: Literal["auto", "env", "file", "keyring"] = Field(
        default="auto",
        description=(
            "Where the master key comes from. `auto`: the environment if set, else the file, "
            "which is made when the database is the embedded one."
        ),
    )

    # Doors
    api_host: str = Field(default="127.0.0.1", description="Address that the API binds to.")
    api_port: int = Field(default=8000, ge=1, le=65535, description="Port of the API.")
    dagster_port: int = Field(
        default=3000, ge=1, le=65535, description="Port of the Dagster UI; always on loopback."
    )
    code_server_port: int = Field(
        default=4000, ge=1, le=65535, description="Port of the Dagster code server, on loopback."
    )
    public_url: str | None = Field(
        default=None, description="The API as others reach it. Default: `http://<host>:<port>`."
    )
    dagster_url: str | None = Field(
        default=None, description="The Dagster UI as operators reach it, for links."
    )
    widget_dir: Path | None = Field(
        default=None,
        description=(
            "Folder with the chat widget's built files. Default: those in the installed package, "
            "else `widget/dist` of the source tree."
        ),
    )

    # Signals
    ingest_queue_limit: int = Field(
        default=20_000,
        ge=1,
        description="Signals that may wait for a commit in one process before 503 is answered.",
    )
    ingest_flush_rows: int = Field(
        default=1_000, ge=1, le=10_000, description="Most signals in one commit."
    )
    ingest_writers: int = Field(
        default=2, ge=1, le=16, description="Connections that write signals, a process."
    )
    signal_retention_days: int = Field(
        default=30,
        ge=1,
        description=(
            "Days that signals stay in PostgreSQL, and how far back Dagster's grid reaches; a tenant may "
            "have terms of its own. The lake keeps them longer."
        ),
    )
    dagster_grid: Literal["tenant", "date"] = Field(
        default="tenant",
        description=(
            "What a partition in Dagster is: one tenant's day (`tenant`), or a day with its tenants as rows "
            "of a table (`date`), for more than about 1,500 tenants."
        ),
    )
    lake_retention_days: int | None = Field(
        default=None, ge=1, description="Days that the lake's files stay. Unset: for ever."
    )
    execution_retention_days: int | None = Field(
        default=90,
        ge=14,
        description="Days that finished executions and their logs stay; digests compare with two weeks.",
    )
    directive_retention_days: int | None = Field(
        default=90,
        ge=14,
        description=(
            "Days after which the content of finished directives is removed; what they were, how they "
            "ended and their idempotency keys stay for ever."
        ),
    )
    conversation_retention_days: int | None = Field(
        default=None,
        ge=1,
        description="Days after which closed conversations of the chat are erased. Unset: never.",
    )
    key_cache_seconds: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="How long a verified API key may be reused; the bound on revocation.",
    )

    # Console
    session_hours: float = Field(
        default=12, gt=0, le=720, description="Hours after which a person signs in again."
    )
    session_idle_minutes: float = Field(
        default=120, gt=0, description="Minutes without a request after which a session ends."
    )
    sign_in_link_minutes: float = Field(
        default=15, gt=0, le=1440, description="Minutes that a one-time sign-in link is good for."
    )
    sign_in_failures: int = Field(
        default=10,
        ge=1,
        description="Failed sign-ins by key from one address within five minutes before 429.",
    )

    # Website chat
    trusted_proxies: int = Field(
        default=0,
        ge=0,
        le=10,
        description=(
            "Proxies in front of the API that append to `X-Forwarded-For`; a client's address, by which "
            "guessing and chat are limited, is that many places from its end. 0: the connection's own."
        ),
    )
    hcaptcha_url: str = Field(
        default="https://api.hcaptcha.com/siteverify",
        description="Where hCaptcha's answers are checked, for tenants who choose it.",
    )
    turnstile_url: str = Field(
        default="https://challenges.cloudflare.com/turnstile/v0/siteverify",
        description="The same for Cloudflare's Turnstile.",
    )

    # Outbound
    allowed_private_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(),
        description=(
            "Private networks that tenant-supplied URLs may reach, as a JSON list of CIDR blocks."
        ),
    )
    allow_plain_http: bool = Field(
        default=False, description="Accept `http://` for tenant-supplied URLs."
    )
    absence_seconds: float = Field(
        default=120.0,
        gt=0,
        description=(
            "How long a message whose answer was lost must stay unseen, twice over, before it is sent "
            "again: longer than the other side's slowest request and its replicas' lag."
        ),
    )
    manual_runs_per_hour: int = Field(
        default=3, ge=0, description="How often a tenant may press *Run now* within an hour."
    )
    digest_grace_hours: float = Field(
        default=6.0, ge=0, description="How late a missed digest still runs; beyond, it is skipped."
    )
    gmail_url: str = Field(
        default="https://gmail.googleapis.com",
        description="Where Gmail's interface is; another one for a private access point to Google.",
    )
    google_token_url: str = Field(
        default="https://oauth2.googleapis.com/token",
        description="Where Google gives tokens to service accounts: the `token_uri` that keys must name.",
    )
    runbooks_url: str | None = Field(
        default=None,
        description=(
            "Where the folder `docs/operator/runbooks` is published, for links in checks and alerts. "
            "Unset: its path in the source tree."
        ),
    )
    operations_tenant: str = Field(
        default="operations",
        description="Slug of the operator's own tenant, which holds the platform's activity.",
    )

    # Language model, for what tenants switch it on for
    llm_url: str | None = Field(
        default=None,
        description=(
            "An OpenAI-compatible endpoint, `https://…/v1`, for what tenants may switch on. Unset: none "
            "is ever asked. One in a private network needs `FLEETPROMPT_ALLOWED_PRIVATE_NETWORKS`."
        ),
    )
    llm_model: str | None = Field(
        default=None, description="The model to ask for by its name there."
    )
    llm_key: SecretStr | None = Field(
        default=None,
        description="The endpoint's key, sent as the bearer token. Unset: none is sent.",
    )
    llm_seconds: float = Field(
        default=20.0, gt=0, le=120, description="Seconds that one answer of the model may take."
    )
    llm_answer_tokens: int = Field(
        default=600, ge=1, le=100_000, description="Most tokens of one answer."
    )
    llm_answer_tokens_name: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens",
        description="What the endpoint calls that bound; OpenAI's newer models take only the second.",
    )
    llm_price_in: Decimal = Field(
        default=Decimal(0), ge=0, description="US dollars for a million tokens of questions."
    )
    llm_price_out: Decimal = Field(
        default=Decimal(0), ge=0, description="US dollars for a million tokens of answers."
    )
    llm_daily_tokens: int = Field(
        default=200_000, ge=0, description="Most tokens of one tenant in a UTC day."
    )
    llm_daily_dollars: Decimal = Field(
        default=Decimal(1),
        ge=0,
        le=1_000_000,
        description="Most US dollars that one tenant's questions and answers may cost in a UTC day.",
    )

    # Metrics
    metrics_token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description=(
            "What Prometheus sends as its bearer token to read `/metrics`. Unset: metrics are not served."
        ),
    )

    # Logs
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level that is logged."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", description="`auto`: text on a terminal, JSON lines elsewhere."
    )

    @field_validator("state_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def lake(self) -> LakePath:
        """Folder of the Parquet lake; InvalidError for an address that is not one."""
        return place_of(self.lake_dir or self.state_dir / "lake")

    @property
    def api_url(self) -> str:
        """The API's base URL without a trailing slash."""
        return (self.public_url or f"http://{self.api_host}:{self.api_port}").rstrip("/")

    @property
    def dagster_base_url(self) -> str:
        """The Dagster UI's base URL without a trailing slash."""
        return (self.dagster_url or f"http://127.0.0.1:{self.dagster_port}").rstrip("/")


@lru_cache
def get_settings() -> Settings:
    """The process's settings; read once."""
    return Settings()
