"""The three logins: the owner (migrations), the application (no right on tenants) and Dagster's."""

from sqlalchemy.engine import URL, make_url

from fleetprompt.errors import ProvisioningUnavailableError
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings
from fleetprompt.vault.master_key import load_master_key

APPLICATION_ROLE = "fleetprompt_app"


def libpq_url(url: str | URL) -> str:
    """Any PostgreSQL URL of SQLAlchemy as libpq and psycopg read it.

    SQLAlchemy leaves blanks in names and writes them as ``+`` in parameters (such as a socket's
    folder); libpq refuses the one and takes the other literally.
    """
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    address, question_mark, parameters = plain.partition("?")
    return f"{address.replace(' ', '%20')}{question_mark}{parameters.replace('+', '%20')}"


def owner_url(settings: Settings) -> str:
    """The owner's login as a libpq URL.

    Without a configured database it is that of the embedded server that runs for the state folder,
    so that commands work beside ``fleetprompt up``; ProvisioningUnavailableError when none runs.
    """
    if settings.database_url is not None:
        return libpq_url(settings.database_url.get_secret_value())
    running = EmbeddedPostgres.running_url(settings.state_dir / "postgres")
    if running is None:
        raise ProvisioningUnavailableError(
            "No database: none runs for this state folder. Start the platform with `fleetprompt up`, or "
            "set FLEETPROMPT_DATABASE_URL to the owner's login of a PostgreSQL 15 or newer."
        )
    return running


def application_password(settings: Settings) -> str:
    """The application login's password, derived from the master key so that nobody keeps it."""
    return load_master_key(settings).subkey("database-login").hex()


def application_url(settings: Settings) -> str:
    """The application's login as a libpq URL."""
    if settings.app_database_url is not None:
        return libpq_url(settings.app_database_url.get_secret_value())
    owner = make_url(owner_url(settings))
    return libpq_url(owner.set(username=APPLICATION_ROLE, password=application_password(settings)))


def sqlalchemy_url(url: str) -> URL:
    """A libpq URL for SQLAlchemy on psycopg 3."""
    return make_url(url).set(drivername="postgresql+psycopg")
