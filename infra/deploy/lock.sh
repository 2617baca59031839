#!/bin/sh
# Writes requirements.lock and requirements-test.lock from pyproject.toml; extra arguments (--upgrade) go to uv.
set -eu
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
${PYTHON:-python3} -m venv "$scratch"
"$scratch/bin/pip" install --quiet --disable-pip-version-check uv

compile() { # OUTPUT EXTRA: pins with hashes and markers, and no word of where this machine gets its packages
    "$scratch/bin/uv" pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-header --extra "$2" --output-file "$1" $options
}
options=$*
compile requirements.lock build
# The test lock starts from the runtime's pins, so that both lists agree on every package they share.
options="$* --constraint requirements.lock"
compile requirements-test.lock test
if grep -nE '://|^-|@ ' requirements.lock requirements-test.lock; then
    echo "A lock names an index or a path; see the lines above." >&2
    exit 1
fi
