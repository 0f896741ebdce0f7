# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# Sourced by conf/quickstart and tests/run: which Debian packages are needed, and how they get there.
# A word PACKAGE:COMMAND is also satisfied by a COMMAND that came in another way.

# shellcheck disable=SC2034 # used by those who source this
MQSYNC_RUN_PACKAGES=(mosquitto mosquitto-clients)
MQSYNC_BUILD_PACKAGES=(gcc:gcc libc6-dev cmake:cmake ninja-build:ninja pkg-config:pkg-config libcjson-dev liblmdb-dev libxxhash-dev
                       libmosquitto-dev mosquitto-dev libjwt-dev libwebsockets-dev libssl-dev)
MQSYNC_TEST_PACKAGES=(check clang:clang clang-tidy:clang-tidy clang-format:clang-format libclang-rt-dev cppcheck:cppcheck shellcheck:shellcheck
                      valgrind:valgrind nodejs:node npm:npm dpkg-dev:dpkg-shlibdeps file:file gzip:gzip procps:ps patchelf:patchelf
                      chromium:chromium curl:curl jq:jq openssl:openssl sqlite3:sqlite3 util-linux:prlimit)

# Keeps the broker's packaged service from taking port 1883 at the moment the package is installed. A policy of the
# administrator's own stays in charge.
mqsync_hold_service()
{
    [ ! -e /usr/sbin/policy-rc.d ] || return 0
    printf '%s\n' '#!/bin/sh' '# put here by mqsync while it installs packages' \
        'case " $* " in *" mosquitto "* | *" mosquitto.service "*) exit 101 ;; esac' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    mqsync_service_held=1
}

mqsync_release_service()
{
    [ -z "${mqsync_service_held-}" ] || rm -f /usr/sbin/policy-rc.d
    mqsync_service_held=
}

# mqsync_need WORD...: installs what is missing, or says what to install and returns 1.
mqsync_need()
{
    local word package command log missing=()
    for word in "$@"; do
        package=${word%%:*} command=${word#"${word%%:*}"}
        command=${command#:}
        if [ -n "$command" ] && command -v "$command" >/dev/null; then continue; fi
        if dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q ' installed$'; then continue; fi
        missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "Missing here: ${missing[*]} (names of Debian 12's packages; this system has no apt-get)." >&2
        return 1
    fi
    if [ "$(id -u)" != 0 ]; then
        printf 'Missing here. As root:\n  apt-get install --no-install-recommends %s\n' "${missing[*]}" >&2
        return 1
    fi
    echo "Installing with apt-get: ${missing[*]}"
    log=$(mktemp)
    mqsync_hold_service
    trap mqsync_release_service EXIT
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } \
        </dev/null >"$log" 2>&1; then
        tail -n 25 "$log" >&2
        echo "apt-get failed; the whole of what it said is in $log" >&2
        mqsync_release_service
        return 1
    fi
    rm -f "$log"
    if [ -n "${mqsync_service_held-}" ] && [[ " ${missing[*]} " == *" mosquitto "* ]] && [ -d /run/systemd/system ]; then
        echo "Debian's own mosquitto.service was not started now, but is enabled for the next boot (systemctl disable mosquitto)."
    fi
    mqsync_release_service
    trap - EXIT
}
