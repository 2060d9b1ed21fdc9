"""A bound on failed sign-ins from one address, exact however many processes answer.

A try counts before its key is looked at, so that many at once cannot slip through, and is taken
back when the key is good: an office behind one address is not locked out by signing in. Other things
that may be guessed at, such as pairing codes, are counted in the same way, each apart.
"""

import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network

from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert

from fleetprompt.clock import Clock, system_clock
from fleetprompt.db.engine import Database
from fleetprompt.errors import RateLimitedError
from fleetprompt.sessions.models import SignInFailures
from fleetprompt.settings import Settings
from fleetprompt.vault.master_key import load_master_key

WINDOW = timedelta(minutes=5)


def _too_many_sign_ins(retry_after: float) -> RateLimitedError:
    return RateLimitedError(
        "Too many failed sign-ins from your address. Wait a little, or use a one-time link.",
        retry_after=retry_after,
    )


class Guessing:
    """Counts tries by address. IPv6 addresses count by their /64, which is what one customer has.

    What has another ``purpose`` is counted apart; ``most`` is None for as many as sign-ins, and ``told``
    makes the problem from the seconds to wait.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        clock: Clock = system_clock,
        *,
        purpose: str = "sign-in",
        most: int | None = None,
        told: Callable[[float], RateLimitedError] = _too_many_sign_ins,
    ) -> None:
        self._database = database
        self._clock = clock
        self._most = settings.sign_in_failures if most is None else most
        self._told = told
        self._hash_key = load_master_key(settings).subkey(f"{purpose}-address-hash")

    async def begin(self, address: str) -> "Try":
        """Count a try; RateLimitedError, until the window ends, beyond the most."""
        now = self._clock()
        window = datetime.fromtimestamp(now.timestamp() // WINDOW.seconds * WINDOW.seconds, UTC)
        address_hash = hmac.digest(self._hash_key, _place(address).encode(), hashlib.sha256)
        async with self._database.platform() as session:
            await session.execute(
                delete(SignInFailures).where(SignInFailures.window_start < window)
            )
            failures = await session.scalar(
                insert(SignInFailures)
                .values(address_hash=address_hash, window_start=window, failures=1)
                .on_conflict_do_update(
                    index_elements=["address_hash", "window_start"],
                    set_={"failures": SignInFailures.failures + 1},
                )
                .returning(SignInFailures.failures)
            )
        if failures is not None and failures > self._most:
            raise self._told((window + WINDOW - now).total_seconds())
        return Try(self._database, address_hash, window)


class Try:
    """One try to sign in, which counts as failed until it is said to have succeeded."""

    def __init__(self, database: Database, address_hash: bytes, window: datetime) -> None:
        self._database = database
        self._address_hash = address_hash
        self._window = window

    async def succeeded(self) -> None:
        """Take the count back."""
        async with self._database.platform() as session:
            await session.execute(
                update(SignInFailures)
                .where(
                    SignInFailures.address_hash == self._address_hash,
                    SignInFailures.window_start == self._window,
                )
                .values(failures=SignInFailures.failures - 1)
            )


def _place(address: str) -> str:
    """The address as it is counted; anything that is none, such as a socket's name, as it is."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped or ip_network((found, 64), strict=False))
    return str(found)
