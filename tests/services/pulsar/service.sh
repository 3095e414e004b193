#!/usr/bin/env bash
# Apache Pulsar standalone (broker, bookie and metadata store in one JVM), from Maven Central; options are `key=value`
# settings that override standalone.conf for this run.
#   PULSAR_PORT (16650), PULSAR_HTTP_PORT (18080), PULSAR_BOOKIE_PORT (PULSAR_PORT + 1), PULSAR_MEM (JVM limits)
ports=("${PULSAR_PORT:-16650}" "${PULSAR_HTTP_PORT:-18080}")
ports+=("${PULSAR_BOOKIE_PORT:-$((ports[0] + 1))}")
ready_s=${PULSAR_TIMEOUT:-180}
stop_s=30
version=$(pinned "$here/pom.xml" pulsar)
server=$home/apache-pulsar-$version

install() {
    JAVA_HOME=$(jdk 17)
    export JAVA_HOME
    debian curl curl
    assemble "$server"
}

# build FOLDER: the tarball holds one folder, whose content becomes ours
build() {
    mvn -B -q -f "$here/pom.xml" -Ddir="$1/unpacked" dependency:unpack@server || return 1
    mv "$1/unpacked/apache-pulsar-$version"/* "$1" && rm -r "$1/unpacked"
}

launch() {
    local setting
    cp "$here/standalone.conf" "$run/standalone.conf"
    for setting in "brokerServicePort=${ports[0]}" "webServicePort=${ports[1]}" "$@"; do
        sed -i "/^${setting%%=*}=/d" "$run/standalone.conf" # a key given twice would be read as a list
        echo "$setting" >>"$run/standalone.conf"
    done
    PULSAR_STANDALONE_CONF=$run/standalone.conf \
    PULSAR_STANDALONE_USE_ZOOKEEPER=0 \
    PULSAR_MEM=${PULSAR_MEM:--Xms256m -Xmx512m -XX:MaxDirectMemorySize=512m -XX:TieredStopAtLevel=1} \
    PULSAR_GC="-XX:+UseG1GC" PULSAR_GC_LOG="-Xlog:disable" \
    PULSAR_LOG_DIR=$run PULSAR_LOG_LEVEL=${PULSAR_LOG_LEVEL:-info} \
        spawn "$server/bin/pulsar" standalone --no-functions-worker --no-stream-storage \
        --metadata-dir "$run/metadata" --bookkeeper-dir "$run/bookkeeper" --bookkeeper-port "${ports[2]}"
}

ready() { curl -sf -m 5 "http://127.0.0.1:${ports[1]}/admin/v2/brokers/health"; }

address() { echo "service=pulsar://127.0.0.1:${ports[0]} admin=http://127.0.0.1:${ports[1]}"; }
