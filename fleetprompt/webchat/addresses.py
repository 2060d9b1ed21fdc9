"""Addresses and browsers as hashes under a salt of the day, which is removed after the next.

A hash counts what comes from one network and tells nobody where that is. IPv4 counts by /24 and IPv6 by
/64, so that no visitor is told from the neighbours.
"""

from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from secrets import token_bytes

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.webchat.models import ChatSalt
from fleetprompt.webchat.signing import encode, mac

_KEPT = timedelta(days=1)


def client_address(peer: str, forwarded_for: str, trusted_proxies: int) -> str:
    """The visitor's address: the connection's, or what the outermost trusted proxy said of its own.

    Each trusted proxy appends one entry to ``X-Forwarded-For``; what is before theirs was sent by the
    visitor and may say anything.
    """
    entries = [entry.strip() for entry in forwarded_for.split(",") if entry.strip()]
    if trusted_proxies == 0 or len(entries) < trusted_proxies:
        return peer
    return entries[-trusted_proxies]


def network_of(address: str) -> str:
    """The network that an address counts by; what is no address counts as itself."""
    try:
        found: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(ip_network((found, 24 if found.version == 4 else 64), strict=False))


async def salt_of(session: AsyncSession, now: datetime) -> bytes:
    """The day's salt, made by whoever needs it first."""
    today = now.date()
    known = select(ChatSalt.salt).where(ChatSalt.day == today)
    salt = await session.scalar(known)
    if salt is None:
        await session.execute(
            insert(ChatSalt).values(day=today, salt=token_bytes(32)).on_conflict_do_nothing()
        )
        await session.execute(delete(ChatSalt).where(ChatSalt.day < today - _KEPT))
        salt = (await session.execute(known)).scalar_one()
    return salt


def hashed(salt: bytes, what: str) -> str:
    """22 characters that stand for ``what`` on this day."""
    return encode(mac(salt, "address", what)[:16])
