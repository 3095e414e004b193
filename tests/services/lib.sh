#!/usr/bin/env bash
# What the four services share: knowing whether an instance runs, waiting for it, ending it, installing what it needs.
# Works on $run, the instance's folder (data, log, pid), and $home, the service's.

# running: whether the process that $run/pid names lives and is ours: it was started with this instance's mark in its
# environment, or works in its folder (Redis overwrites its environment, Pulsar leaves the folder). A process that has
# died but is not yet reaped, or another one that got the same number since, has neither.
running() {
    local pid
    pid=$(cat "$run/pid" 2>/dev/null) || return 1
    [[ $(readlink "/proc/$pid/cwd")/ == "$run"/* ]] || grep -qsxzF "SERVICE_RUN=$run" "/proc/$pid/environ"
}

# claim PORT...: fails when something else listens there, whose answers would pass for our own
claim() {
    local port
    for port in "$@"; do
        (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue
        echo "$name: port $port is already taken" >&2
        return 1
    done
}

# spawn COMMAND...: runs it in $run and in a session of its own, away from this terminal and its locks
spawn() {
    cd "$run"
    (
        # Whatever the caller has open, its locks above all, would otherwise be held as long as the server runs.
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            [ "$fd" -le 2 ] || eval "exec $fd>&-"
        done
        SERVICE_RUN=$run exec setsid "$@"
    ) >"$run/log" 2>&1 </dev/null &
    echo $! >"$run/pid"
    local tries=50 # until the child has become the program and carries the mark
    until running || [ $((tries -= 1)) -eq 0 ]; do sleep 0.01; done
}

# await SECONDS COMMAND...: tries it until it succeeds; fails when the process dies or the time is up
await() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if ! running || [ $SECONDS -ge "$deadline" ]; then
            tail -n 30 "$run/log" >&2
            echo "$name did not get ready; its log is $run/log" >&2
            return 1
        fi
        sleep 0.2
    done
}

# halt SECONDS [--kill|--wipe]: asks the process to stop, waits, and kills it when the time is up
halt() {
    local deadline=$((SECONDS + $1)) signal=TERM pid
    case ${2:-} in '' | --wipe) ;; --kill) signal=KILL ;; *) usage ;; esac
    if running; then
        pid=$(cat "$run/pid")
        kill -s "$signal" "$pid"
        while running; do
            [ $SECONDS -lt "$deadline" ] || kill -s KILL "$pid" 2>/dev/null || true
            sleep 0.1
        done
    fi
    rm -f "$run/pid"
    [ "${2:-}" != --wipe ] || rm -rf "$run"
}

# show: one line of key=value pairs, for people and for programs
show() { echo "$(address) pid=$(cat "$run/pid") log=$run/log"; }

# debian COMMAND PACKAGE...: installs one of the Debian packages unless the command is there
debian() { command -v "$1" >/dev/null || debian_package "${@:2}"; }

# debian_package PACKAGE...: installs the first of them that can be had
debian_package() {
    local package
    apt-get update -qq >&2
    for package in "$@"; do
        [ -n "$(apt-cache madison "$package" 2>/dev/null)" ] || continue
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >&2
        return 0
    done
    echo "$name needs one of these packages, and none can be had: $*" >&2
    return 1
}

# jdk VERSION: prints the home of the newest JDK of at least that version, installing one when there is none
jdk() {
    local found
    found=$(newest_jdk "$1")
    if [ -z "$found" ]; then
        debian_package openjdk-25-jdk-headless openjdk-21-jdk-headless
        found=$(newest_jdk "$1")
    fi
    [ -n "$found" ] || { echo "$name needs a JDK of at least $1; set JAVA_HOME to one" >&2; return 1; }
    echo "$found"
}

# newest_jdk VERSION: of JAVA_HOME and where Debian and others put them; prints nothing when all are older
newest_jdk() {
    local candidate number best=$(($1 - 1)) found=
    for candidate in "${JAVA_HOME:-}" /usr/lib/jvm/*; do
        [ -x "$candidate/bin/javac" ] && [ -f "$candidate/release" ] || continue
        number=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$candidate/release")
        if [ "${number:-0}" -gt "$best" ]; then best=$number found=$candidate; fi
    done
    echo "$found"
}

# pinned POM NAME: the version that the property NAME.version of a pom.xml pins
pinned() { sed -n "s|.*<$2.version>\(.*\)</$2.version>.*|\1|p" "$1"; }

# assemble FOLDER: runs `build FOLDER.part` and moves the result into place, so that a half-made folder is never used
assemble() {
    local unpack
    [ ! -d "$1" ] || return 0
    debian mvn maven
    unpack=$(mktemp -d "$home/.unpack-XXXXXX")
    if ! build "$unpack" >&2; then
        rm -rf "$unpack"
        return 1
    fi
    mv "$unpack" "$1"
}
