"""Pairing codes as text: ``ABCD-EFGH-JKLM``, to be read out, typed and thrown away.

12 characters out of 32, none of which looks like another: 60 bits. The first four find the code, the
others prove it: tries are counted by the first four, so that a code that is guessed at dies, and a guess
at any code at all hits one of 2^60.
"""

import hashlib
import hmac
import secrets

ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_LENGTH = 12
_FINDER = 4
_IGNORED = str.maketrans("", "", " -\t\r\n")


def make_code() -> str:
    """A new random code, as it is shown."""
    code = "".join(secrets.choice(ALPHABET) for _ in range(_LENGTH))
    return "-".join((code[:4], code[4:8], code[8:]))


def code_hashes(hash_key: bytes, typed: str) -> tuple[bytes, bytes]:
    """What is stored and looked for: hashes of the first part and of the whole, 32 bytes each.

    Case, spaces and hyphens do not count. What can be no code has hashes too, which nothing has.
    """
    code = typed.translate(_IGNORED).upper()
    finder, whole = (
        hmac.digest(hash_key, f"{part}:{text}".encode("utf-8", "surrogatepass"), hashlib.sha256)
        for part, text in (("finder", code[:_FINDER]), ("code", code))
    )
    return finder, whole
