"""Where traces go: whether OpenTelemetry is installed, and whether somebody takes them."""

from importlib.util import find_spec

import httpx

from infra.doctor.finding import Finding, fault, healthy, warning
from infra.settings import Settings

ANSWER_S = 5.0


def traces_finding(settings: Settings) -> Finding:
    name = "traces"
    if settings.otlp_url is None:
        return healthy(name, "none are sent")
    if find_spec("opentelemetry") is None:
        return fault(name, "OpenTelemetry is not installed: nothing starts", "`pip install 'wattledger[otel]'`")
    try:
        # An empty request is a right one.
        answer = httpx.post(
            settings.otlp_url, content=b"", headers={"Content-Type": "application/x-protobuf"}, timeout=ANSWER_S
        ).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return warning(name, f"they are lost: {type(error).__name__}", "Correct WATTLEDGER_OTLP_URL, or start there")
    return healthy(name, f"taken by {answer.url.host}")
