#!/usr/bin/env bash
# A Pulsar proxy in front of the broker that `service start pulsar` runs, from the same distribution: what clients outside
# of a cluster are usually given. The broker has to have been started before.
#   PULSAR_PROXY_PORT (16660), PULSAR_PROXY_HTTP_PORT (18090); PULSAR_PORT and PULSAR_HTTP_PORT are the broker's
ports=("${PULSAR_PROXY_PORT:-16660}" "${PULSAR_PROXY_HTTP_PORT:-18090}")
ready_s=60
stop_s=15
version=$(pinned "$here/../pulsar/pom.xml" pulsar)
server=$home/../pulsar/apache-pulsar-$version

install() {
    JAVA_HOME=$(jdk 17)
    export JAVA_HOME
    [ -d "$server" ] || {
        echo "$name: start pulsar first, whose program it is" >&2
        return 1
    }
}

launch() {
    printf '%s\n' \
        "brokerServiceURL=pulsar://127.0.0.1:${PULSAR_PORT:-16650}" \
        "brokerWebServiceURL=http://127.0.0.1:${PULSAR_HTTP_PORT:-18080}" \
        "clusterName=standalone" "bindAddress=127.0.0.1" "advertisedAddress=127.0.0.1" \
        "brokerProxyAllowedTargetPorts=${PULSAR_PORT:-16650}" \
        "servicePort=${ports[0]}" "webServicePort=${ports[1]}" "$@" >"$run/proxy.conf"
    PULSAR_PROXY_CONF=$run/proxy.conf \
    PULSAR_MEM="-Xms64m -Xmx128m -XX:MaxDirectMemorySize=128m -XX:TieredStopAtLevel=1" \
    PULSAR_GC="-XX:+UseSerialGC" PULSAR_GC_LOG="-Xlog:disable" \
    PULSAR_LOG_DIR=$run PULSAR_LOG_LEVEL=${PULSAR_LOG_LEVEL:-info} \
        spawn "$server/bin/pulsar" proxy
}

# That it listens is not enough: it has to find the broker.
ready() { (: <"/dev/tcp/127.0.0.1/${ports[0]}") && curl -sf -m 5 "http://127.0.0.1:${ports[1]}/admin/v2/clusters"; }

address() { echo "service=pulsar://127.0.0.1:${ports[0]} admin=http://127.0.0.1:${ports[1]}"; }
