"""Who calls: a JWT of the operator's identity provider or an API key becomes a caller with a right."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, partial
from typing import Any, Literal
from uuid import UUID

import anyio
import jwt
from jwt import PyJWKClient
from jwt.exceptions import PyJWKClientConnectionError
from starlette.datastructures import Headers

from application.organisations import parse_api_key
from domain.errors import (
    Forbidden,
    InsufficientOrgPermissions,
    OrgContextRequired,
    OrgMembershipRequired,
    Unauthorized,
    Unavailable,
)
from interfaces.http.inputs import parse_uuid
from interfaces.http.key_uses import KeyUses
from interfaces.http.known import Known
from interfaces.http.queries import asked
from interfaces.http.services import HttpServices, IdentityProvider
from projections.api_keys import ApiKeyRow, api_key

LEEWAY_S = 30
JWKS_TIMEOUT_S = 5
KEY_REMEMBERED_S = 1.0
JWKS_AGAIN_S = 2.0
"""A provider that could not be reached is asked no sooner; until then what needs it is refused at once."""
# A key that the provider withdraws is honoured this long.
TOKEN_REMEMBERED_S = 30
REMEMBERED_TOKENS = 1000
REMEMBERED = 10_000
NO_HASH = "0" * 64


class Right(IntEnum):
    """What a caller may; each includes those before it, but for AUDIT, which administrators and auditors have."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3
    AUDIT = 4


ROLES = {"VIEWER": Right.READ, "OPERATOR": Right.WRITE, "ORG_ADMIN": Right.ADMIN}
SCOPES = {"trading:read": Right.READ, "trading:write": Right.WRITE, "trading:admin": Right.ADMIN}
AUDIT_SCOPE = "trading:audit"
"""It includes READ."""


@dataclass(frozen=True)
class Caller:
    """A user or an API key, within one organisation."""

    kind: Literal["user", "key"]
    id: UUID
    organization_id: UUID
    right: Right
    audits: bool = False

    @cached_property
    def actor(self) -> str:
        return f"{self.kind}:{self.id}"

    @cached_property
    def organization(self) -> str:
        return str(self.organization_id)

    def require(self, right: Right) -> None:
        if not (self.audits if right is Right.AUDIT else self.right >= right):
            raise InsufficientOrgPermissions if self.kind == "user" else Forbidden


class Credentials:
    """Checks callers: 401, then the organisation's 403s. A request that carries both credentials is a 401, because
    we don't guess who acts."""

    def __init__(self, services: HttpServices, known: Known, uses: KeyUses):
        self._services = services
        self._known = known
        self._tokens = Tokens(services.identity_provider)
        self._uses = uses
        self._callers: dict[str, tuple[Caller, int, float]] = {}

    async def caller(self, headers: Headers) -> Caller:
        authorizations, api_keys, organizations = _values(headers, b"authorization", b"x-api-key", b"x-org-id")
        if len(authorizations) + len(api_keys) != 1:
            raise Unauthorized
        wanted = [value.strip() for value in organizations if value.strip()]
        if api_keys:
            return await self._key(api_keys[0], wanted)
        return await self._user(authorizations[0], wanted)

    async def _key(self, presented: str, wanted: list[str]) -> Caller:
        """Remembered only while no read model has moved, and never long: a revoked key is refused at once."""
        reached, now = self._services.positions.reached, time.monotonic()
        caller, at, until = self._callers.get(presented, (None, 0, 0.0))
        if caller is None or at != reached or now >= until:
            row = await self._valid(presented)
            caller = _caller(row)
            if len(self._callers) >= REMEMBERED:
                self._callers.clear()
            self._callers[presented] = (caller, reached, now + min(KEY_REMEMBERED_S, row.seconds_left()))
        self._uses.note(caller.id)
        if any(parse_uuid(organization_id) != caller.organization_id for organization_id in wanted):
            raise OrgMembershipRequired
        return caller

    async def _valid(self, presented: str) -> ApiKeyRow:
        parsed = parse_api_key(presented)
        if parsed is None:
            raise Unauthorized
        key_id, secret = parsed
        row = await asked(self._services.queries, partial(api_key, key_id=key_id))
        # An unknown key takes as long as a wrong one.
        matches = self._services.key_hasher.matches(secret, row.secret_hash if row else NO_HASH)
        if row is None or not matches or not row.is_valid():
            raise Unauthorized
        return row

    async def _user(self, authorization: str, wanted: list[str]) -> Caller:
        claims = await self._tokens.claims(authorization)
        user_id = parse_uuid(claims["sub"])
        if user_id is None:
            raise Unauthorized
        if not wanted:
            raise OrgContextRequired
        organization_id = parse_uuid(wanted[0])
        if organization_id is None or len(wanted) > 1:
            raise OrgMembershipRequired
        right = _right(claims, self._services.identity_provider.orgs_claim, organization_id)
        if right is None or not await self._known.organization_exists(organization_id):
            raise OrgMembershipRequired
        return Caller("user", user_id, organization_id, right, audits=right is Right.ADMIN)


class Tokens:
    """Verifies JWTs: signature by a pinned algorithm, then `exp`, `iss`, `aud` and `sub`, all required."""

    def __init__(self, provider: IdentityProvider):
        self._provider = provider
        # Unknown key ids may cause one fetch in 30 s.
        self._jwks = PyJWKClient(provider.jwks_url, timeout=JWKS_TIMEOUT_S) if provider.jwks_url else None
        self._verified: dict[str, tuple[dict[str, Any], float]] = {}
        # A provider that hangs must not take the threads that commands run in.
        self._fetching = anyio.CapacityLimiter(2)
        self._ask_again_at = 0.0

    async def claims(self, authorization: str) -> dict[str, Any]:
        """Raises Unauthorized, or Unavailable while the provider's keys can't be fetched."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not self._provider.issuer or not self._provider.audience:
            raise Unauthorized
        token = token.strip()
        verified, until = self._verified.get(token, ({}, 0.0))
        if time.time() < until:
            return verified
        try:
            claims = await self._verify(token)
        except PyJWKClientConnectionError:
            raise Unavailable("The identity provider can't be reached") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # Some of them are what hostile headers and claims make the parser raise.
            raise Unauthorized from None
        if len(self._verified) >= REMEMBERED_TOKENS:
            self._verified.clear()
        self._verified[token] = (claims, min(time.time() + TOKEN_REMEMBERED_S, int(claims["exp"]) + LEEWAY_S))
        return claims

    async def _verify(self, token: str) -> dict[str, Any]:
        return jwt.decode(
            token,
            await self._key(token),
            algorithms=self._provider.pinned,
            issuer=self._provider.issuer,
            audience=self._provider.audience,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )

    async def _key(self, token: str) -> Any:
        if self._jwks is None:
            given = self._provider.public_key or self._provider.secret
            if given is None:
                raise Unauthorized
            return given
        key_id = jwt.get_unverified_header(token).get("kid")
        if not isinstance(key_id, str):
            raise Unauthorized
        known = self._jwks.jwk_set_cache.get() if self._jwks.jwk_set_cache else None
        for key in known.keys if known else ():
            if key.key_id == key_id and key.public_key_use in ("sig", None):
                return key
        return await anyio.to_thread.run_sync(self._fetched, self._jwks, key_id, limiter=self._fetching)

    def _fetched(self, jwks: PyJWKClient, key_id: str) -> Any:
        """In a thread; of those who waited for a provider that did not answer none asks again."""
        if time.monotonic() < self._ask_again_at:
            raise PyJWKClientConnectionError("asked a moment ago")
        try:
            return jwks.get_signing_key(key_id)
        except PyJWKClientConnectionError:
            self._ask_again_at = time.monotonic() + JWKS_AGAIN_S
            raise


def _values(headers: Headers, *names: bytes) -> Iterable[list[str]]:
    """What was given under each name, of all headers looked at once."""
    given: dict[bytes, list[str]] = {name: [] for name in names}
    for name, value in headers.raw:
        if name in given:
            given[name].append(value.decode("latin-1"))
    return given.values()


def _caller(key: ApiKeyRow) -> Caller:
    right = max((SCOPES.get(scope, Right.NONE) for scope in key.scopes), default=Right.NONE)
    audits = right is Right.ADMIN or AUDIT_SCOPE in key.scopes
    return Caller("key", key.id, key.organization_id, max(right, Right.READ) if audits else right, audits)


def _right(claims: Mapping[str, Any], orgs_claim: str, organization_id: UUID) -> Right | None:
    """None for a non-member; a role that we don't know is a member's without rights."""
    if claims.get("superadmin") is True:
        return Right.ADMIN
    organisations = claims.get(orgs_claim)
    if not isinstance(organisations, dict):
        return None
    roles = {name.lower(): role for name, role in organisations.items()}
    role = roles.get(str(organization_id))
    return ROLES.get(role, Right.NONE) if isinstance(role, str) else None
