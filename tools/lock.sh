#!/bin/sh
# Choose the versions of requirements/*.txt anew, from what pyproject.toml asks for (a maintainer's tool).
#
#   tools/lock.sh              keep what is locked where it still fits
#   tools/lock.sh --upgrade    the newest of everything
#
# The files hold for every Python and platform that gpuprov runs on, and a hash of every file.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
lock() { # FILE INPUT...
  file=requirements/$1.txt
  shift
  "$folder/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-header --no-annotate --no-emit-index-url --output-file "$file" $upgrade "$@"
}
upgrade=${1:-}
lock gpuprov pyproject.toml --extra nvml
lock dev pyproject.toml --extra nvml --group dev
echo "hatchling>=1.25" >"$folder/build.in" # as pyproject.toml's build-system says
lock build "$folder/build.in"
