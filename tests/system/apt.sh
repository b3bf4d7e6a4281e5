# To be sourced: apt-get as root, without questions, and with patience, for a mirror may be away for a moment.
# shellcheck shell=bash

apt() {
    local pause
    for pause in 0 5 20 60; do
        sleep $pause
        DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=5 "$@" >/dev/null && return
    done
    return 1
}
