"""Who is let in and whom we call: the identity provider, partners' logins, and which ESMs may be private."""

from collections.abc import Iterator
from ipaddress import ip_network

import httpx

from infra.bootstrap import Where
from infra.doctor.finding import Finding, fault, healthy, warning
from infra.settings import Settings

ANSWER_S = 5.0
WIDEST = {4: 8, 6: 32}
"""Prefix lengths: a private network is not larger."""


def partner_findings(where: Where, settings: Settings) -> Iterator[Finding]:
    yield _identity_provider(settings)
    if settings.rabbitmq_auth_network:
        yield healthy("partner logins", f"RabbitMQ may ask from {settings.rabbitmq_auth_network}")
    else:
        remedy = "Set WATTLEDGER_RABBITMQ_AUTH_NETWORK, and RabbitMQ up as the README says"
        yield warning("partner logins", "partners can't log in to the broker with API keys", remedy)
    yield _allowed(where)


def _identity_provider(settings: Settings) -> Finding:
    name = "identity provider"
    given = settings.jwt_jwks_url or settings.jwt_public_key or settings.jwt_secret
    if not given:
        return warning(name, "none: only API keys are taken", "Set WATTLEDGER_JWT_JWKS_URL if people log in by JWT")
    if not (settings.jwt_issuer and settings.jwt_audience):
        remedy = "Set WATTLEDGER_JWT_ISSUER and WATTLEDGER_JWT_AUDIENCE"
        return fault(name, "every JWT is refused: issuer or audience is not set", remedy)
    if not settings.jwt_jwks_url:
        return healthy(name, "its key is in the settings")
    try:
        answer = httpx.get(settings.jwt_jwks_url, timeout=ANSWER_S).raise_for_status()
        keys = answer.json()["keys"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        return fault(name, f"its JWKS can't be had: {type(error).__name__}", "Correct WATTLEDGER_JWT_JWKS_URL")
    return healthy(name, f"its JWKS has {len(keys)} keys")


def _allowed(where: Where) -> Finding:
    wide = [part for part in where.esm_allowed if _is_wide(part)]
    if wide:
        remedy = "Name only the partners' own networks in WATTLEDGER_ESM_ALLOWED"
        return warning("address guard", f"{', '.join(wide)} lets organisations reach anything there", remedy)
    return healthy("address guard", f"private: {', '.join(where.esm_allowed) or 'none'}")


def _is_wide(part: str) -> bool:
    try:
        network = ip_network(part, strict=False)
    except ValueError:
        return False  # a host's name
    return network.prefixlen < WIDEST[network.version]
