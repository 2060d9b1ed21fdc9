"""Tokens, visitors' secrets, challenges and identity tokens hold only where and when they should."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from fleetprompt.errors import (
    IdentityExpiredError,
    IdentityInvalidError,
    TokenExpiredError,
    TokenInvalidError,
    TokenKeyUnknownError,
    TokenOriginMismatchError,
    TokenSiteMismatchError,
    VisitorExpiredError,
)
from fleetprompt.webchat import tokens, visitors, work
from fleetprompt.webchat.identity import read_identity
from fleetprompt.webchat.signing import decode, encode
from fleetprompt.webchat.tokens import Claims, SigningSecret

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SITE, VISITOR = uuid4(), uuid4()
ORIGIN = "https://shop.example"
SECRET = SigningSecret(uuid4(), b"s" * 32)


def claims(**changed: Any) -> Claims:
    issued_at = int(NOW.timestamp())
    values = {
        "site": SITE,
        "visitor": VISITOR,
        "origin": ORIGIN,
        "issued_at": issued_at,
        "expires_at": issued_at + 900,
        **changed,
    }
    return Claims(**values)


def check(token: str, *, secret: SigningSecret = SECRET, **changed: Any) -> Claims:
    values = {"site": SITE, "origin": ORIGIN, "secrets": {secret.id: secret}, "now": NOW, **changed}
    return tokens.check(token, **values)


def test_a_token_says_what_was_signed() -> None:
    assert check(tokens.sign(claims(), SECRET)) == claims()


def test_t38_a_token_holds_for_its_site_origin_time_and_key_alone() -> None:
    token = tokens.sign(claims(), SECRET)
    with pytest.raises(TokenSiteMismatchError):
        check(token, site=uuid4())
    with pytest.raises(TokenOriginMismatchError):
        check(token, origin="https://shop.example:8443")
    check(token, now=NOW + timedelta(seconds=899))
    with pytest.raises(TokenExpiredError):
        check(token, now=NOW + timedelta(seconds=900))
    with pytest.raises(TokenKeyUnknownError):
        check(token, secret=SigningSecret(uuid4(), SECRET.content))
    with pytest.raises(TokenInvalidError):
        check(token, secret=SigningSecret(SECRET.id, b"t" * 32))


def test_t38_a_retired_key_reads_what_it_signed_before_and_nothing_since() -> None:
    retired = SigningSecret(SECRET.id, SECRET.content, retired_at=NOW)
    assert check(tokens.sign(claims(), SECRET), secret=retired) == claims()
    since = claims(issued_at=int(NOW.timestamp()) + 1)
    with pytest.raises(TokenKeyUnknownError):
        check(tokens.sign(since, SECRET), secret=retired)


def test_a_token_that_lives_too_long_is_refused_although_it_is_signed() -> None:
    long = claims(expires_at=int(NOW.timestamp()) + 901)
    with pytest.raises(TokenInvalidError):
        check(tokens.sign(long, SECRET))


def test_t39_every_change_of_a_token_is_refused() -> None:
    token = tokens.sign(claims(), SECRET)
    text, _, signature = token.partition(".")
    payload = json.loads(decode(text))
    forged = [
        "",
        ".",
        text,
        f"{text}.",
        f"{text}.{signature}=",
        f"{text}=.{signature}",
        f"{text}.{signature}\n",
        f"{text}.{signature}.x",
        f"{text}.{signature[:-1]}",
        f".{signature}",
        "é.é",
        "x" * 5000,
        f"{encode(b'[]')}.{signature}",
        f"{encode(b'null')}.{signature}",
        f"{encode(b'[' * 100_000)}.{signature}",
    ]
    for changed in (
        {"alg": "none"},
        {"v": 2},
        {"visitor": str(uuid4())},
        {"exp": payload["exp"] + 1},
        {"exp": 1e400},
        {"iat": "soon"},
        {"kid": 5},
        {"origin": "https://evil.example"},
    ):
        body = encode(json.dumps(payload | changed, sort_keys=True).encode())
        forged += [f"{body}.{signature}", f"{body}."]
    for position in range(0, len(token), 7):
        swapped = "A" if token[position] != "A" else "B"
        forged.append(token[:position] + swapped + token[position + 1 :])
    for one in forged:
        with pytest.raises(
            (TokenInvalidError, TokenSiteMismatchError, TokenKeyUnknownError),
        ):
            check(one)


def test_a_visitors_secret_is_the_same_visitor_for_90_days_however_often_it_is_used() -> None:
    secret = b"v" * 32
    visitor = visitors.new_visitor(secret, NOW)
    assert len(visitor) <= visitors.LENGTH_LIMIT
    known = visitors.visitor_id(secret, visitor, NOW)
    assert visitors.visitor_id(secret, visitor, NOW + timedelta(days=89)) == known
    assert visitors.visitor_id(secret, visitors.new_visitor(secret, NOW), NOW) != known
    with pytest.raises(VisitorExpiredError):
        visitors.visitor_id(secret, visitor, NOW + timedelta(days=90))
    version, made, rest, signature = visitor.split(".")
    for bad in (
        "",
        "v1...",
        f"{version}.{int(made) + 9}.{rest}.{signature}",
        f"v2.{made}.{rest}.{signature}",
        f"{visitor}=",
        visitor[:-2],
    ):
        with pytest.raises(VisitorExpiredError):
            visitors.visitor_id(secret, bad, NOW)
    with pytest.raises(VisitorExpiredError):
        visitors.visitor_id(b"w" * 32, visitor, NOW)


def _solve(challenge: dict[str, Any]) -> str:
    number = 0
    while True:
        answer = f"{challenge['nonce']}:{number}"
        digest = int.from_bytes(hashlib.sha256(answer.encode()).digest())
        if digest >> (256 - challenge["bits"]) == 0:
            return answer
        number += 1


def test_work_counts_for_its_site_visitor_and_time_alone() -> None:
    secret = b"c" * 32
    asked = work.challenge(secret, SITE, VISITOR, 12, NOW)
    assert set(asked) == {"kind", "nonce", "bits"}
    assert len(asked["nonce"]) <= 200
    answer = _solve(asked)
    proof = work.read_proof(answer, secret, SITE, VISITOR, NOW)
    assert proof is not None
    assert (proof.nonce, proof.bits) == (asked["nonce"], 12)
    for bad in (
        work.read_proof(answer, secret, uuid4(), VISITOR, NOW),
        work.read_proof(answer, secret, SITE, uuid4(), NOW),
        work.read_proof(answer, b"d" * 32, SITE, VISITOR, NOW),
        work.read_proof(answer, secret, SITE, VISITOR, NOW + timedelta(seconds=121)),
        work.read_proof(asked["nonce"], secret, SITE, VISITOR, NOW),
        work.read_proof(f"{asked['nonce']}:x", secret, SITE, VISITOR, NOW),
        work.read_proof(answer.replace(".12.", ".01."), secret, SITE, VISITOR, NOW),
        work.read_proof(None, secret, SITE, VISITOR, NOW),
        work.read_proof("é:1", secret, SITE, VISITOR, NOW),
    ):
        assert bad is None
    lazy = [f"{asked['nonce']}:{number}" for number in range(50)]
    assert sum(work.read_proof(a, secret, SITE, VISITOR, NOW) is not None for a in lazy) < 3


def test_trap_42_no_more_work_is_asked_than_the_widget_does(repository: Path) -> None:
    """However many come from one network: what asks for more would shut the rest of an office out."""
    source = (repository / "widget/src/work.ts").read_text()
    most = int(source.partition("MOST_BITS = ")[2].partition(";")[0])
    assert {work.bits_for(excess) <= most for excess in range(0, 5000)} == {True}
    assert (
        f"`bits` is at most {most};" in (repository / "docs/reference/webchat-api.md").read_text()
    )


def test_the_more_comes_the_harder_it_gets_up_to_what_a_phone_can_do() -> None:
    bits = [work.bits_for(excess) for excess in (1, 2, 4, 8, 100, 10_000)]
    assert bits == sorted(bits)
    assert (bits[0], bits[-1]) == (13, 18)


def _jwt(secret: bytes, claims: object, header: object | None = None) -> str:
    head = {"alg": "HS256", "typ": "JWT"} if header is None else header
    text = ".".join(encode(json.dumps(part).encode()) for part in (head, claims))
    return f"{text}.{encode(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def test_t57_an_identity_has_a_subject_and_an_end() -> None:
    secret, soon = b"i" * 32, NOW.timestamp() + 600
    good = {"sub": "customer-7", "exp": soon, "name": "Noor", "email": "noor@example.org"}
    found = read_identity(_jwt(secret, good), secret, NOW)
    assert (found.subject, found.name, found.email) == ("customer-7", "Noor", "noor@example.org")
    with pytest.raises(IdentityExpiredError):
        read_identity(_jwt(secret, good), secret, NOW + timedelta(seconds=600))
    unsigned = _jwt(secret, good, {"alg": "none"})
    for bad in (
        _jwt(b"j" * 32, good),
        unsigned,
        f"{unsigned.rpartition('.')[0]}.",
        _jwt(secret, good, {"alg": "HS512"}),
        _jwt(secret, good, []),
        _jwt(secret, []),
        _jwt(secret, {**good, "sub": ""}),
        _jwt(secret, {**good, "sub": None}),
        _jwt(secret, {**good, "sub": 7}),
        _jwt(secret, {**good, "email": "nobody"}),
        _jwt(secret, {"sub": "customer-7"}),
        _jwt(secret, {**good, "exp": "never"}),
        _jwt(secret, {**good, "exp": NOW.timestamp() + 90_000}),
        "a.b",
        "a.b.c",
        "",
    ):
        with pytest.raises(IdentityInvalidError):
            read_identity(bad, secret, NOW)
