"""JWTs that are refused, and identity providers by PEM and by JWKS."""

import base64
import json
import time
from typing import Any
from uuid import uuid4

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from domain.errors import Unauthorized
from interfaces.http.credentials import Tokens
from interfaces.http.services import IdentityProvider
from tests.http.world import PROVIDER, Org, is_envelope, token

PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = (
    PRIVATE.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
NOW = int(time.time())


def unsigned(header: dict[str, object], claims: dict[str, object], signature: str = "") -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, signature])


def nested() -> str:
    deep = base64.urlsafe_b64encode(b"[" * 9000).rstrip(b"=").decode()
    return f"{deep}.{deep}.x"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 60}, {"exp": None}, {"exp": "soon"}, {"iss": "https://evil.example.com"}, {"iss": None},
        {"aud": "someone else"}, {"aud": None}, {"sub": None}, {"sub": "alice"}, {"sub": 7}, {"nbf": NOW + 600},
        {"secret": "another secret that is long enough for HS256, too"}, {"exp": float("inf")},
    ],
    ids=str,
)  # fmt: skip
def test_claims_that_are_refused(org: Org, claims: dict[str, Any]) -> None:
    before = org.world.count()
    answer = org.post("/trading/config/enable", headers=org.jwt(**claims))
    is_envelope(answer, 401, "UNAUTHORIZED")
    assert answer.json()["message"] == "Unauthorized"
    assert org.world.count() == before


def test_thirty_seconds_of_leeway(org: Org) -> None:
    assert org.get("/trading/config", headers=org.jwt(exp=int(time.time()) - 20)).status_code == 200


def test_half_a_minute_of_leeway_before_it_holds(org: Org) -> None:
    assert org.get("/trading/config", headers=org.jwt(nbf=int(time.time()) + 20)).status_code == 200


@pytest.mark.parametrize("audience", [["elsewhere", "wattledger"], ["wattledger"]])
def test_an_audience_of_several(org: Org, audience: list[str]) -> None:
    assert org.get("/trading/config", headers=org.jwt(aud=audience)).status_code == 200


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "RS256", "HS512", "ES256", ""])
def test_a_token_does_not_choose_its_algorithm(org: Org, algorithm: str) -> None:
    claims = jwt.decode(org.jwt()["Authorization"][7:], options={"verify_signature": False})
    headers = {"Authorization": f"Bearer {unsigned({'alg': algorithm, 'typ': 'JWT'}, claims)}"}
    is_envelope(org.get("/trading/config", headers=headers), 401, "UNAUTHORIZED")


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer a.b.c", "Basic dTpw", "Bearer " + nested(), "é"])
def test_headers_that_are_refused(org: Org, value: str) -> None:
    headers = [(b"Authorization", value.encode("latin-1")), (b"x-org-id", str(org.id).encode())]
    is_envelope(org.world.client.get("/trading/config", headers=headers), 401, "UNAUTHORIZED")


@pytest.mark.parametrize("orgs", [[], "ORG_ADMIN", {"x": "ORG_ADMIN"}, None, {"*": "ORG_ADMIN"}])
def test_orgs_that_are_no_membership(org: Org, orgs: object) -> None:
    is_envelope(org.get("/trading/config", headers=org.jwt(orgs=orgs)), 403, "ORG_MEMBERSHIP_REQUIRED")


def claims_by(provider: IdentityProvider, presented: str) -> dict[str, object]:
    return anyio.run(Tokens(provider).claims, f"Bearer {presented}")


def signed(key_id: str, key: object = PRIVATE, algorithm: str = "RS256") -> str:
    claims = jwt.decode(token(None, None), options={"verify_signature": False})
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": key_id})  # type: ignore[arg-type]


def test_pem() -> None:
    by_pem = IdentityProvider(public_key=PUBLIC_PEM, issuer=PROVIDER.issuer, audience=PROVIDER.audience)
    assert claims_by(by_pem, signed("any"))["iss"] == PROVIDER.issuer
    with pytest.raises(Unauthorized):
        claims_by(by_pem, token("ORG_ADMIN", uuid4(), secret="the public key must not work as a secret"))


def test_without_issuer_or_audience_no_token_is_taken() -> None:
    for missing in (IdentityProvider(secret=PROVIDER.secret, issuer="i"), IdentityProvider(secret=PROVIDER.secret)):
        with pytest.raises(Unauthorized):
            claims_by(missing, token(None, None))


def test_a_remembered_token_ends_when_it_ends() -> None:
    ends = int(time.time()) - 10
    presented = f"Bearer {token(None, None, exp=ends)}"

    async def ask() -> None:
        tokens = Tokens(PROVIDER)
        first = await tokens.claims(presented)
        assert await tokens.claims(presented) is first
        assert [until for _, until in tokens._verified.values()] == [ends + 30]

    anyio.run(ask)
