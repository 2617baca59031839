"""What RabbitMQ must be told so that it asks our API about partners; its own accounts stay its own, and come first."""

PLUGINS = ("rabbitmq_auth_backend_http", "rabbitmq_auth_backend_cache")
CACHE_MS = 15_000
"""How long a revoked key may still log in: the broker remembers an answer for so long."""


def config(api_url: str, cache_ms: int = CACHE_MS) -> tuple[str, ...]:
    """Lines of rabbitmq.conf; `api_url` is the root of an API process, such as http://10.0.0.7:8000."""
    questions = ("user", "vhost", "resource", "topic")
    return (
        "auth_backends.1 = internal",
        "auth_backends.2 = cache",
        "auth_cache.cached_backend = http",
        f"auth_cache.cache_ttl = {cache_ms}",
        "auth_http.http_method = post",
        *(f"auth_http.{question}_path = {api_url}/internal/rabbitmq/{question}" for question in questions),
    )
