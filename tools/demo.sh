#!/bin/sh
# The demo: a rehearsal fleet is started, provisioned, verified, trained and reported.
#
#   tools/demo.sh [OPTION...]    options of `gpuprov apply`, such as -e gpuprov_torch_index=URL
#
# Where no CPU build of torch can be had for this machine's Python, everything else is still shown.
set -eu
cd "$(dirname "$0")/.."
as_root=
[ "$(id -u)" = 0 ] || as_root="sudo env PYTHONDONTWRITEBYTECODE=1" # root leaves no files in a folder that is not its own

$as_root .venv/bin/gpuprov lab up
code=0
.venv/bin/gpuprov apply inventory/lab.yaml "$@" || code=$?
if [ "$code" = 6 ] && .venv/bin/gpuprov report --json | grep -q '"hint": "[^"]*gpuprov_torch_index'; then
  printf '\ndemo: going on without torch\n'
  .venv/bin/gpuprov apply inventory/lab.yaml --skip-tags torch "$@" || code=$?
  printf '\ndemo: torch and its proof are missing, since no CPU build for this Python could be had; name a place that' >&2
  printf " has one:\n      make demo ARGS='-e gpuprov_torch_index=URL', or -e gpuprov_torch_find_links=FOLDER\n" >&2
fi
exit "$code"
