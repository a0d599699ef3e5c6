# Debian hosts of our own, for proofs: a root made by debootstrap, booted by systemd-nspawn with a network of its own. To be sourced by bash.
# Needs root, and: debootstrap systemd-container.
# shellcheck shell=bash

# Made roots are kept here.
ROOTS="${DEBIAN_ROOTS:-${HOME:-/var/tmp}/.cache/nowwhat/roots}"

# What is missing fails the proof; nothing is skipped here.
need() {
    command -v "$1" >/dev/null || { echo "$1 is missing: apt-get install -y --no-install-recommends $2" >&2; exit 1; }
}

# base SUITE: makes the root of a Debian, unless it is there; prints where.
base() {
    local root="$ROOTS/$1"
    if [ ! -e "$root" ]; then
        need debootstrap debootstrap
        mkdir -p "$ROOTS"
        rm -rf "$root.part"
        debootstrap --include=systemd,systemd-sysv,dbus,python3-minimal "$1" "$root.part" >"$root.log" 2>&1 || { tail "$root.log" >&2; return 1; }
        mv "$root.part" "$root"
    fi
    echo "$root"
}

# inside ROOT COMMAND…: runs it in a root that is not booted.
inside() {
    local root="$1"
    shift
    systemd-nspawn --quiet --directory="$root" --register=no --keep-unit --pipe "$@" </dev/null
}

# boot ROOT LOG: boots it in the background, and waits until its systemd is up. Sets BOOTED, the process on our side, and INIT, its systemd.
boot() {
    need systemd-nspawn systemd-container
    systemd-nspawn --quiet --directory="$1" --boot --register=no --keep-unit --private-network >"$2" 2>&1 </dev/null &
    BOOTED=$!
    INIT=""
    wait_for "the boot of $1" booted
}

booted() {
    INIT="$(tr -d ' ' 2>/dev/null <"/proc/$BOOTED/task/$BOOTED/children")"
    [ -n "$INIT" ] && on systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'
}

# on COMMAND…: runs it on the booted host.
on() {
    nsenter --target "$INIT" --mount --uts --ipc --net --pid --root --wd -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# halt: ends the host.
halt() {
    [ -n "${BOOTED:-}" ] || return 0
    kill -TERM "$BOOTED" 2>/dev/null || true
    wait "$BOOTED" 2>/dev/null || true
    BOOTED=""
}

# wait_for WHAT COMMAND…: until the command succeeds, for two minutes.
wait_for() {
    local what="$1" end=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || { echo "waited in vain for $what" >&2; return 1; }
        sleep 0.2
    done
}
