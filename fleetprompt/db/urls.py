"""The three logins: the owner (migrations), the application (no right on tenants) and Dagster's."""

from sqlalchemy.engine import URL, make_url

from fleetprompt.errors import ProvisioningUnavailableError
from fleetprompt.settings import Settings
from fleetprompt.vault.master_key import load_master_key

APPLICATION_ROLE = "fleetprompt_app"


def _libpq(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def owner_url(settings: Settings) -> str:
    """The owner's login as a libpq URL; raises ProvisioningUnavailableError when not configured."""
    if settings.database_url is None:
        raise ProvisioningUnavailableError(
            "FLEETPROMPT_DATABASE_URL is not set, so this process has no owner login. Start the "
            "platform with `fleetprompt up`, or set it to the URL of a PostgreSQL 15 or newer."
        )
    return _libpq(make_url(settings.database_url.get_secret_value()))


def application_password(settings: Settings) -> str:
    """The application login's password, derived from the master key so that nobody keeps it."""
    return load_master_key(settings).subkey("database-login").hex()


def application_url(settings: Settings) -> str:
    """The application's login as a libpq URL."""
    if settings.app_database_url is not None:
        return _libpq(make_url(settings.app_database_url.get_secret_value()))
    owner = make_url(owner_url(settings))
    return _libpq(owner.set(username=APPLICATION_ROLE, password=application_password(settings)))


def sqlalchemy_url(url: str) -> URL:
    """A libpq URL for SQLAlchemy on psycopg 3."""
    return make_url(url).set(drivername="postgresql+psycopg")
