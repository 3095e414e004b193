#!/usr/bin/env bash
# Redis, from Debian. Without persistence unless started with `--appendonly yes`; options go to redis-server.
#   REDIS_PORT (16379)
ports=("${REDIS_PORT:-16379}")
ready_s=20
stop_s=10

install() { debian redis-server redis-server; }

launch() { spawn redis-server --bind 127.0.0.1 --port "${ports[0]}" --dir "$run" --save '' "$@"; }

ready() { [ "$(redis-cli -h 127.0.0.1 -p "${ports[0]}" ping)" = PONG ]; }

address() { echo "url=redis://127.0.0.1:${ports[0]}/0"; }
