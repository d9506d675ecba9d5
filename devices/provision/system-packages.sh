#!/bin/sh
# Installs Debian packages when run as root; otherwise names them in one line with the command to run.
# With --required, a package that is still missing afterwards is a failure.
set -eu

required=no
if [ "${1:-}" = "--required" ]; then
    required=yes
    shift
fi

missing=""
for package in "$@"; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = "installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = "0" ] && command -v apt-get >/dev/null; then
    echo "installing system packages:$missing"
    # A mirror may be away for a moment, and another program may hold apt's lock for some minutes.
    patient="-o Acquire::Retries=5 -o DPkg::Lock::Timeout=600"
    # shellcheck disable=SC2086 -- one word an option, and a package, is meant
    apt-get update -qq $patient || echo "apt-get update failed: going on with the lists that are here" >&2
    # shellcheck disable=SC2086
    if DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $patient $missing >/dev/null; then
        exit 0
    fi
    echo "apt-get could not install them: is a mirror of Debian in reach?" >&2
fi

echo "missing system packages; to install them: sudo apt-get install$missing"
[ "$required" = "no" ]
