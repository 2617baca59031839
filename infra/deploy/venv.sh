#!/bin/sh
# Installs a lock file and this project into a virtual environment, making it if need be: venv.sh DIRECTORY LOCK
set -eu
venv=$1 lock=$2
python=${PYTHON:-python3}
say() { echo "wattledger: $*" >&2; }

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || {
    say "Python 3.11 to 3.14 is needed, and '$python' is not; name another: make PYTHON=python3.12"
    exit 1
}
# Debian keeps the part of Python that makes virtual environments in a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "'$python' cannot make virtual environments; as root: apt-get install python3-venv"
        exit 1
    fi
    say "installing python3-venv"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
fi
# One that lost its interpreter, or was copied from elsewhere, is made anew.
"$venv/bin/pip" --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"
say "installing $lock into $venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$lock"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
