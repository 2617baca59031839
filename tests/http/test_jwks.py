"""The identity provider's own keys: rotated, withdrawn, confused with one another, and out of reach."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from domain.errors import Unauthorized, Unavailable
from infra.serving import Serving
from interfaces.http import credentials
from interfaces.http.credentials import Tokens
from interfaces.http.services import IdentityProvider
from tests.http.test_credentials import PRIVATE, PUBLIC_PEM
from tests.http.world import PROVIDER, token

OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public(key: Any) -> dict[str, Any]:
    algorithm = (
        jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else jwt.algorithms.RSAAlgorithm
    )
    return dict(algorithm.to_jwk(key.public_key(), as_dict=True))


def signed(key_id: str | None, key: Any = PRIVATE, algorithm: str = "RS256", **header: Any) -> str:
    claims = jwt.decode(token(None, None), options={"verify_signature": False})
    headers = {**header, "kid": key_id} if key_id else header
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)


@dataclass
class Provider:
    """Serves its keys and counts who asks."""

    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    status: int = 200

    def tokens(self, **more: Any) -> Tokens:
        return Tokens(IdentityProvider(jwks_url=self.url, issuer=PROVIDER.issuer, audience=PROVIDER.audience, **more))

    async def answer(self, _: Request) -> Response:
        self.asked += 1
        return JSONResponse({"keys": self.keys}, self.status)


@pytest.fixture
def provider() -> Iterator[Provider]:
    """With the key `one`."""
    made = Provider(keys=[{**public(PRIVATE), "kid": "one", "use": "sig"}])
    with Serving(Starlette(routes=[Route("/jwks", made.answer)])) as serving:
        made.url = f"{serving.url}/jwks"
        yield made


def claims(tokens: Tokens, *presented: str) -> list[str]:
    """What becomes of each, one after the other: `ok` or its error."""

    async def ask() -> list[str]:
        became = []
        for each in presented:
            try:
                became.append("ok" if await tokens.claims(f"Bearer {each}") else "")
            except (Unauthorized, Unavailable) as error:
                became.append(type(error).__name__)
        return became

    return anyio.run(ask)


def test_keys_are_fetched_once_whatever_key_ids_come(provider: Provider) -> None:
    unknown = [signed(f"unknown-{number}") for number in range(5)]
    assert claims(provider.tokens(), signed("one"), signed("one"), *unknown) == ["ok", "ok", *["Unauthorized"] * 5]
    assert provider.asked == 1


def test_a_new_key_is_fetched_when_it_is_used(provider: Provider) -> None:
    tokens = provider.tokens()
    assert tokens._jwks is not None
    assert claims(tokens, signed("one")) == ["ok"]
    provider.keys = [{**public(OTHER), "kid": "two", "use": "sig"}]
    # Within 30 s of the last fetch nobody can have another made.
    assert claims(tokens, signed("two", OTHER)) == ["Unauthorized"]
    assert provider.asked == 1
    tokens._jwks._last_successful_fetch = time.monotonic() - 31
    assert claims(tokens, signed("two", OTHER), signed("three", OTHER)) == ["ok", "Unauthorized"]
    assert provider.asked == 2
    # The one that was withdrawn is so for every new token; a verified one is remembered half a minute.
    assert claims(tokens, signed("one", jti="new")) == ["Unauthorized"]


@pytest.mark.parametrize("key_id", ["one", "two"])
def test_a_key_does_not_verify_under_anothers_id(provider: Provider, key_id: str) -> None:
    provider.keys.append({**public(OTHER), "kid": "two", "use": "sig"})
    wrong = {"one": OTHER, "two": PRIVATE}[key_id]
    assert claims(provider.tokens(), signed(key_id, wrong)) == ["Unauthorized"]


def confused(secret: str) -> str:
    """HS256 under a public key, which everybody has; made by hand, because the library refuses to."""
    told = jwt.decode(token(None, None), options={"verify_signature": False})
    parts = [{"alg": "HS256", "typ": "JWT", "kid": "one"}, told]
    text = ".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def test_a_public_key_is_no_secret(provider: Provider) -> None:
    presented = [confused(PUBLIC_PEM), confused(json.dumps(public(PRIVATE)))]
    assert claims(provider.tokens(), *presented) == ["Unauthorized"] * 2
    by_pem = IdentityProvider(public_key=PUBLIC_PEM, issuer=PROVIDER.issuer, audience=PROVIDER.audience)
    assert claims(Tokens(by_pem), *presented) == ["Unauthorized"] * 2
    # Not even where an operator has pinned both.
    both = provider.tokens(algorithms=("RS256", "HS256"))
    assert claims(both, *presented, signed("one")) == ["Unauthorized", "Unauthorized", "ok"]


def test_a_key_is_used_for_its_own_algorithm_only(provider: Provider) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    provider.keys.append({**public(curve), "kid": "curve", "use": "sig"})
    by_curve = signed("curve", curve, "ES256")
    assert claims(provider.tokens(), by_curve) == ["Unauthorized"]
    assert claims(provider.tokens(algorithms=("RS256", "ES256")), by_curve, signed("one")) == ["ok", "ok"]


def test_a_key_for_encryption_signs_nothing(provider: Provider) -> None:
    provider.keys = [{**public(PRIVATE), "kid": "one", "use": "enc"}, {**public(OTHER), "kid": "two", "use": "sig"}]
    assert claims(provider.tokens(), signed("two", OTHER), signed("one")) == ["ok", "Unauthorized"]


@pytest.mark.parametrize(
    "header",
    [{"jwk": public(OTHER)}, {"jku": "http://127.0.0.1:9/evil"}, {"x5u": "http://127.0.0.1:9/evil"}, {"crit": ["x"]}],
    ids=lambda header: next(iter(header)),
)
def test_a_token_brings_no_key_of_its_own(provider: Provider, header: dict[str, Any]) -> None:
    presented = [signed("one", OTHER, **header), signed(None, OTHER, **header)]
    assert claims(provider.tokens(), *presented) == ["Unauthorized"] * 2


@pytest.mark.parametrize("answer", [{"status": 500}, {"keys": []}, {"keys": [{"kty": "?"}]}], ids=str)
def test_a_provider_that_answers_nonsense_lets_nobody_in(provider: Provider, answer: dict[str, Any]) -> None:
    vars(provider).update(answer)
    assert set(claims(provider.tokens(), signed("one"))) <= {"Unauthorized", "Unavailable"}


def test_a_provider_out_of_reach_is_asked_once_for_all_who_wait(provider: Provider) -> None:
    provider.status = 503
    tokens = provider.tokens()
    assert claims(tokens, *[signed("one", jti=str(number)) for number in range(20)]) == ["Unavailable"] * 20
    assert provider.asked == 1
    provider.status = 200
    tokens._ask_again_at = 0.0
    assert claims(tokens, signed("one")) == ["ok"]
    assert credentials.JWKS_AGAIN_S < 5
