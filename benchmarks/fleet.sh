#!/usr/bin/env bash
# A loopback fleet of real OpenSSH hosts on one machine.
#
# Every host has its own mount, pid, uts and ipc namespace, a copy-on-write
# overlay of / as its root, a private /tmp, /run and /root, and an sshd on its
# own 127.0.x.y address. Root is needed; nothing leaves the loopback range.
#
#   fleet.sh [-s STATE] [-p PORT] [-d SEED] up COUNT      start hosts 1..COUNT that are not up
#   fleet.sh [-s STATE] [-p PORT] [-d SEED] reset COUNT   stop all, start 1..COUNT on fresh overlays
#   fleet.sh [-s STATE] down                              stop and remove every host started here
#   fleet.sh [-s STATE] status                            one line per host; rc 1 unless all are up
#
# STATE defaults to $FLEET_STATE, else ${TMPDIR:-/tmp}/gpuprov-fleet.
# PORT  defaults to $FLEET_PORT, else 2222.
# SEED  (or $FLEET_SEED) is a folder copied over every host's root before it starts.
#
# After `up`, STATE holds what a client needs: id (private key), known_hosts,
# ssh_config (aliases gpu1..gpuN) and hosts (lines of "name address port").
# Needs: openssh-server, openssh-client, iproute2, util-linux.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

STATE=${FLEET_STATE:-${TMPDIR:-/tmp}/gpuprov-fleet}
PORT=${FLEET_PORT:-2222}
SEED=${FLEET_SEED:-}
WAIT_S=${FLEET_WAIT_S:-60}

die() { echo "fleet: $*" >&2; exit 1; }
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
address() { echo "127.0.$((1 + $1 / 250)).$((1 + $1 % 250))"; }

# A pid alone may have been reused; pid plus start time names one process.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
alive() { # DIR
  local pid born
  read -r pid born 2>/dev/null <"$1/pid" || return 1
  [ -n "$pid" ] && [ "$(start_time "$pid")" = "$born" ]
}
host_dirs() { find "$STATE" -maxdepth 1 -type d -name 'h[0-9]*' 2>/dev/null | sort -V; }
listening() { ss -Hltn "sport = :$PORT" | awk '{print $4}'; }

make_keys() {
  [ -f "$STATE/id" ] || ssh-keygen -q -t ed25519 -N '' -C fleet -f "$STATE/id"
  [ -f "$STATE/hostkey" ] || ssh-keygen -q -t ed25519 -N '' -C fleet-host -f "$STATE/hostkey"
}

# Runs inside the new namespaces: builds the root and becomes its sshd.
inside() { # DIR NAME
  local d=$1 m=$1/root o="lowerdir=/,upperdir=$1/upper,workdir=$1/work"
  # volatile: 100 hosts share one disk here, so skip the copy-up fsyncs
  mount -t overlay overlay -o "$o,volatile" "$m" 2>/dev/null || mount -t overlay overlay -o "$o" "$m"
  mount -t proc proc "$m/proc"
  mount --rbind /dev "$m/dev"
  mount --rbind /sys "$m/sys"
  mount -t tmpfs -o mode=1777 tmpfs "$m/tmp"
  mount -t tmpfs -o mode=755 tmpfs "$m/run"
  mkdir -p "$m/run/sshd" "$m/run/lock"
  # No package index: nothing is downloaded, and an image without apt's binary
  # cache would otherwise parse the whole index at every apt call.
  [ ! -d "$m/var/lib/apt/lists" ] || mount -t tmpfs tmpfs "$m/var/lib/apt/lists"
  mount --bind "$d/home" "$m/root"
  # volatile makes fsync a no-op; gpuprov's journal is measured on the real file system of STATE
  mkdir -p "$m/var/lib/gpuprov"
  mount --bind "$d/journal" "$m/var/lib/gpuprov"
  hostname "$2"
  cd /
  exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$m" "$(command -v sshd)" -D -e -f /etc/fleet/sshd_config
}

start_host() { # INDEX
  local i=$1 d=$STATE/h$1 ip pid
  ip=$(address "$i")
  rm -rf --one-file-system "$d"
  mkdir -p "$d/upper/etc/fleet" "$d/work" "$d/root" "$d/home" "$d/journal"
  chmod 700 "$d/home" "$d/journal"
  [ -z "$SEED" ] || cp -a --no-preserve=ownership "$SEED/." "$d/upper/"
  cp "$STATE/hostkey" "$d/upper/etc/fleet/hostkey"
  cp "$STATE/id.pub" "$d/upper/etc/fleet/authorized_keys"
  chmod 600 "$d/upper/etc/fleet/hostkey"
  printf '127.0.0.1 localhost\n%s gpu%d\n' "$ip" "$i" >"$d/upper/etc/hosts"
  printf 'gpu%d\n' "$i" >"$d/upper/etc/hostname"
  : >"$d/upper/etc/resolv.conf" # look-ups stay on this machine
  cat >"$d/upper/etc/fleet/sshd_config" <<E
Port $PORT
ListenAddress $ip
HostKey /etc/fleet/hostkey
AuthorizedKeysFile /etc/fleet/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
MaxStartups 1000:30:2000
MaxSessions 100
LogLevel VERBOSE
Subsystem sftp internal-sftp
E
  setsid unshare --mount --pid --uts --ipc --fork --kill-child \
    bash "$SELF" __inside "$d" "gpu$i" >"$d/log" 2>&1 </dev/null &
  pid=$!
  echo "$pid $(start_time $pid)" >"$d/pid"
}

write_client_files() { # COUNT
  local i ip key
  key=$(cut -d' ' -f1,2 "$STATE/hostkey.pub")
  : >"$STATE/hosts.new"; : >"$STATE/known_hosts.new"
  printf 'Host gpu*\n  User root\n  Port %s\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n\n' \
    "$PORT" "$STATE/id" "$STATE/known_hosts" >"$STATE/ssh_config.new"
  for i in $(seq 1 "$1"); do
    ip=$(address "$i")
    echo "gpu$i $ip $PORT" >>"$STATE/hosts.new"
    echo "[$ip]:$PORT $key" >>"$STATE/known_hosts.new"
    printf 'Host gpu%d\n  HostName %s\n' "$i" "$ip" >>"$STATE/ssh_config.new"
  done
  for i in hosts known_hosts ssh_config; do mv "$STATE/$i.new" "$STATE/$i"; done
}

up() { # COUNT
  local i started=() now end
  [ "$(id -u)" = 0 ] || die "needs root (mount namespaces)"
  for i in sshd ssh-keygen ss unshare; do command -v $i >/dev/null || die "$i is not installed"; done
  mkdir -p "$STATE" /run/sshd
  STATE=$(cd "$STATE" && pwd -P)
  [ -z "$SEED" ] || SEED=$(cd "$SEED" && pwd -P)
  make_keys
  now=$(listening)
  for i in $(seq 1 "$1"); do
    alive "$STATE/h$i" && continue
    ! grep -qx "$(address "$i"):$PORT" <<<"$now" || die "$(address "$i"):$PORT is taken by a process this fleet did not start"
    start_host "$i"
    started+=("$i")
  done
  write_client_files "$1"
  end=$((SECONDS + WAIT_S))
  while :; do
    now=$(listening)
    for i in "${!started[@]}"; do
      if grep -qx "$(address "${started[i]}"):$PORT" <<<"$now"; then unset 'started[i]'; fi
    done
    [ ${#started[@]} -gt 0 ] || break
    [ $SECONDS -lt $end ] || die "not listening after ${WAIT_S}s: ${started[*]} (see $STATE/h*/log)"
    sleep 0.1
  done
}

down() {
  local d pid end dirs=()
  mapfile -t dirs < <(host_dirs)
  for d in "${dirs[@]}"; do
    if alive "$d"; then
      read -r pid _ <"$d/pid"
      kill -KILL "$pid" # --kill-child ends the host's pid 1, hence all of the host
    fi
  done
  end=$((SECONDS + WAIT_S))
  for d in "${dirs[@]}"; do
    while alive "$d"; do [ $SECONDS -lt $end ] || die "$d does not stop"; sleep 0.05; done
    # its mounts lived in its own namespace and went with it; this is for an
    # 'up' that was broken off before the namespace existed
    ! mountpoint -q "$d/root" || umount -R "$d/root"
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      rm -rf --one-file-system "$d" 2>/dev/null && break
      sleep 0.1
    done
    [ ! -e "$d" ] || die "cannot remove $d"
  done
  if [ ${#dirs[@]} -gt 0 ]; then rm -f "$STATE/hosts" "$STATE/known_hosts" "$STATE/ssh_config"; fi
}

status() {
  local d n=0 up=0 word
  for d in $(host_dirs); do
    n=$((n + 1)); word=down
    if alive "$d"; then word=up; up=$((up + 1)); fi
    printf 'gpu%s\t%s\t%s\t%s\n' "${d##*/h}" "$(address "${d##*/h}")" "$word" "$(cut -d' ' -f1 "$d/pid" 2>/dev/null)"
  done
  echo "$up of $n up in $STATE"
  [ $up -eq $n ]
}

SELF=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)/${BASH_SOURCE[0]##*/}
if [ "${1:-}" = __inside ]; then inside "$2" "$3"; fi
while getopts s:p:d:h opt; do
  case $opt in s) STATE=$OPTARG ;; p) PORT=$OPTARG ;; d) SEED=$OPTARG ;; *) usage ;; esac
done
shift $((OPTIND - 1))
count() { [[ ${1:-} =~ ^[1-9][0-9]*$ ]] && [ "$1" -le 5000 ] || usage; }
case ${1:-} in
  up) count "${2:-}"; up "$2" ;;
  reset) count "${2:-}"; down; up "$2" ;;
  down) down ;;
  status) status ;;
  *) usage ;;
esac
