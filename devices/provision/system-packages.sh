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
    apt-get update -qq
    # shellcheck disable=SC2086 -- one word a package is meant
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    exit 0
fi

echo "missing system packages; to install them: sudo apt-get install$missing"
[ "$required" = "no" ]
