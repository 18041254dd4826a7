#!/bin/sh
# `make bench`: gpuprov against the yardstick, at 1, 10, 50 and 200 hosts. About 15 minutes on two cores.
#
#   benchmarks/run.sh                         the table of the README
#   benchmarks/run.sh --tools gpuprov,ansible,pyinfra --hosts 10 --reps 1     anything else bench.py takes
set -eu
cd "$(dirname "$0")"
state=${BENCH_STATE:-${TMPDIR:-/tmp}/gpuprov-bench}
[ "$(id -u)" = 0 ] || { echo "bench: needs root (mount namespaces): sudo make bench" >&2; exit 1; }
python3 -c 'import apt_pkg' 2>/dev/null || /usr/bin/python3 -c 'import apt_pkg' 2>/dev/null ||
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-apt >/dev/null
if [ ! -x "$state/venv/bin/pyinfra" ]; then
  echo "bench: making the peers' virtual environment in $state/venv"
  python3 -m venv "$state/venv"
  "$state/venv/bin/pip" install -q --disable-pip-version-check -r requirements-peers.txt
fi
bench() { "$state/venv/bin/python" bench.py --state "$state" --venv "$state/venv" "$@"; }
if [ $# -gt 0 ]; then
  bench "$@"
  exit
fi
result=$state/results-$(date +%Y%m%d-%H%M%S).json
for hosts in 1 10 50 200; do
  bench --tools gpuprov,oneshot25519,floor-paramiko --hosts "$hosts" --reps 3 --json "$result" >/dev/null
done
bench --tools gpuprov --table --json "$result"
echo "every run: $result"
