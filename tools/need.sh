#!/bin/sh
# Installs the Debian packages named as arguments where the program that each brings is missing. Says first what, why
# and with which command; without root or sudo it stops and leaves that command to the reader.
# The word `python` asks for no package: it checks that $PYTHON is new enough.
set -eu

present() {
    case $1 in
    python) "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ;;
    python3-venv) "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ;;
    python3-dev) "$PYTHON" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ;;
    *) command -v "$1" >/dev/null ;; # the package is named after its program
    esac
}

why() {
    case $1 in
    g++) echo 'links the kernels that numba compiles into the module of a wheel' ;;
    python3-dev) echo 'the headers that this module is built with' ;;
    python3-venv) echo 'makes the private environment .venv' ;;
    dbus-daemon) echo 'carries Bluetooth calls between the hub and simulated devices, on a bus of its own' ;;
    mosquitto) echo 'the MQTT broker that the tests start, each on a port of its own' ;;
    esac
}

PYTHON=${PYTHON:-python3}
missing=
for name in "$@"; do
    if ! present "$name"; then
        if [ "$name" = python ]; then
            echo "python: got $("$PYTHON" --version 2>&1), expected 3.11 or newer; name another with PYTHON=..." >&2
            exit 1
        fi
        missing="$missing $name"
    fi
done
[ -n "$missing" ] || exit 0

echo 'Missing on this machine:' >&2
for name in $missing; do
    echo "  $name: $(why "$name")" >&2
done
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
sudo=${as_root:+sudo }
echo "To be run now: ${sudo}apt-get update && ${sudo}apt-get install --no-install-recommends$missing" >&2

refuse() {
    echo "Stopped: $1. Run the command above by hand, or install the programs in your own way, then try again." >&2
    exit 1
}
command -v apt-get >/dev/null || refuse 'this machine has no apt-get'
if [ -n "$as_root" ]; then
    command -v sudo >/dev/null || refuse 'not root, and there is no sudo'
    [ -t 0 ] || sudo -n true 2>/dev/null || refuse 'not root, and sudo would ask for a password with nobody there'
fi

# Debian starts and enables mosquitto when it installs it. Only its program is wanted: a mask for the time of the
# installation keeps it from starting, and disabling it keeps it so after the next boot.
quiet_mosquitto=
case $missing in *mosquitto*) [ ! -d /run/systemd/system ] || quiet_mosquitto=yes ;; esac
if [ -n "$quiet_mosquitto" ]; then
    echo "  and: systemctl mask --runtime, unmask --runtime, disable mosquitto.service (installed, not started)" >&2
    $as_root systemctl mask --quiet --runtime mosquitto.service
    trap '$as_root systemctl unmask --quiet --runtime mosquitto.service' EXIT
fi
$as_root apt-get update -q
# $missing is a list of names that we wrote: it is meant to be split.
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
if [ -n "$quiet_mosquitto" ]; then
    trap - EXIT
    $as_root systemctl unmask --quiet --runtime mosquitto.service
    $as_root systemctl disable --quiet mosquitto.service
fi
for name in $missing; do
    present "$name" || refuse "$name was installed, but what it should bring is still not found"
done
