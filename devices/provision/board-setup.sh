#!/bin/sh
# Prepares a board for `edgeexit flash`, once, as root:   sudo sh board-setup.sh [LOGIN-USER]
# Makes the user that the daemon runs as, the folders that flashing writes to, and the environment
# that the unit starts. Nothing is removed; running it again changes nothing.
set -eu

login=${1:-${SUDO_USER:-root}}
environment=/opt/edgeexit

[ "$(id -u)" = "0" ] || { echo "run as root: sudo sh $0 $login" >&2; exit 1; }
[ "$(getconf LONG_BIT)" = "64" ] || echo "note: 32-bit userland: only tflite-runtime exists here, up to Debian 12" >&2

getent group edgeexit >/dev/null || groupadd --system edgeexit
getent passwd edgeexit >/dev/null ||
    useradd --system --gid edgeexit --home-dir /var/lib/edgeexit --comment 'edgeexit device' \
        --shell /usr/sbin/nologin edgeexit
for group in video render; do
    ! getent group "$group" >/dev/null || usermod --append --groups "$group" edgeexit
done
[ "$login" = "root" ] || usermod --append --groups edgeexit "$login"

# Flashing writes as the login user, the daemon reads as edgeexit: both through the group.
install -d -o "$login" -g edgeexit -m 2775 /var/lib/edgeexit /var/lib/edgeexit/bundles /etc/edgeexit

if [ ! -x "$environment/bin/edgeexit" ]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install 'edgeexit[device]'
fi

echo "ready: edgeexit flash $login@$(hostname) BUNDLE"
