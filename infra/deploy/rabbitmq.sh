#!/bin/sh
# Installs RabbitMQ's programs for the tests if they are missing, and leaves no service of Debian's running.
set -eu
say() { echo "wattledger: $*" >&2; }

if [ -n "${WATTLEDGER_TEST_AMQP_URL:-}" ] || ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin >/dev/null 2>&1; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "RabbitMQ is missing, so the tests that need it will fail; as root: apt-get install rabbitmq-server"
    exit 0
fi
say "installing rabbitmq-server"
# Debian starts a service while it installs it, unless this file says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rabbitmq-server >/dev/null
if [ -d /run/systemd/system ]; then
    systemctl disable --quiet rabbitmq-server # nor at the next boot: the tests run nodes of their own
fi
