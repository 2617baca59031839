"""The broker's plugins: by two of them it asks us about partners, and only its management API tells which it has."""

import httpx

from infra.doctor.finding import Finding, fault, healthy, warning
from infra.partner_auth import PLUGINS
from infra.settings import Settings

ANSWER_S = 5.0


def plugins_finding(settings: Settings) -> Finding:
    name = "plugins"
    if not settings.rabbitmq_auth_network:
        return healthy(name, "none is needed without partner logins")
    remedy = "Set WATTLEDGER_RABBITMQ_MANAGEMENT_URL with a user tagged monitoring, or see `rabbitmq-plugins list`"
    if settings.rabbitmq_management_url is None:
        return warning(name, "can't be seen", remedy)
    try:
        missing = _missing(settings.rabbitmq_management_url)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        return warning(name, f"can't be seen: {type(error).__name__}", remedy)
    if missing is None:
        return warning(name, "can't be seen: no node answers", remedy)
    if missing:
        return fault(name, f"not enabled: {', '.join(missing)}", f"`rabbitmq-plugins enable {' '.join(missing)}`")
    return healthy(name, "all are enabled")


def _missing(management_url: str) -> list[str] | None:
    """Those that some node lacks; None when there is no node."""
    answer = httpx.get(f"{management_url.rstrip('/')}/api/nodes", timeout=ANSWER_S).raise_for_status()
    enabled = [set(node["enabled_plugins"]) for node in answer.json()]
    return [each for each in PLUGINS if not all(each in plugins for plugins in enabled)] if enabled else None
