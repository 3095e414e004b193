#!/usr/bin/env bash
# Elasticsearch, one node, from the jars on Maven Central and a small main class; options are `key=value` settings.
#   ELASTIC_PORT (19200), ELASTIC_TRANSPORT_PORT (ELASTIC_PORT + 100), ELASTIC_HEAP (1g)
port=${ELASTIC_PORT:-19200}
transport=${ELASTIC_TRANSPORT_PORT:-$((port + 100))}
ports=("$port" "$transport")
ready_s=${ELASTIC_TIMEOUT:-120}
stop_s=30
version=$(pinned "$here/pom.xml" elasticsearch)
# A change of the main class or of the jars makes another folder, so an old one is never run by mistake.
server=$home/elasticsearch-$version-$(cat "$here"/pom.xml "$here"/*.java | sha256sum | cut -c1-8)

install() {
    java=$(jdk 21)
    debian curl curl
    assemble "$server"
}

# build FOLDER: the jars in lib, our plug-in and the transport as modules, and the system's libraries beside them
build() {
    local lib=$1/lib native
    mvn -B -q -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies \
        -DoutputDirectory="$lib" -DincludeScope=runtime || return 1
    compile "$1" RestPlugin || return 1
    module "$1" rest RestPlugin "$lib/RestPlugin.jar"
    module "$1" transport-netty4 org.elasticsearch.transport.netty4.Netty4Plugin "$lib"/{transport-netty4,netty}-*.jar
    compile "$1" EsNode || return 1

    # The server looks for its native helpers here; of those only zstd is to be had, from the system.
    native=$lib/platform/linux-$([ "$(uname -m)" = aarch64 ] && echo aarch64 || echo x64)
    mkdir -p "$native"
    ln -s "$(ldconfig -p | sed -n 's/.*libzstd\.so\.1 .* => //p' | head -n 1)" "$native/libzstd.so"
}

# compile FOLDER CLASS: makes a jar of it in the folder's lib
compile() {
    "$java/bin/javac" -d "$1/classes" -cp "$1/lib/*" "$here/$2.java" &&
        "$java/bin/jar" --create --file "$1/lib/$2.jar" -C "$1/classes" . &&
        rm -r "$1/classes"
}

# module FOLDER NAME CLASS JAR...: makes a module of the jars, for the server to load the plug-in CLASS from
module() {
    local folder=$1/modules/$2
    mkdir -p "$folder"
    mv "${@:4}" "$folder"
    printf '%s\n' "name=$2" "classname=$3" "description=$2" "version=$version" \
        "elasticsearch.version=$version" java.version=21 >"$folder/plugin-descriptor.properties"
}

launch() {
    mkdir -p "$run/config" "$run/snapshots"
    cp "$here/log4j2.properties" "$run/config/"
    {
        cat "$here/elasticsearch.yml"
        printf '%s\n' "http.port: $port" "transport.port: $transport" \
            "path.data: $run/data" "path.logs: $run/logs" "path.repo: $run/snapshots"
        printf '%s\n' "${@/=/: }"
    } >"$run/config/elasticsearch.yml"
    spawn "$java/bin/java" -Xms"${ELASTIC_HEAP:-1g}" -Xmx"${ELASTIC_HEAP:-1g}" -XX:+UseG1GC \
        -XX:+AutoCreateSharedArchive -XX:SharedArchiveFile="$server/classes.jsa" \
        --add-modules=jdk.incubator.vector --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow \
        -Des.path.home="$server" -Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false \
        -Djava.awt.headless=true -cp "$server/lib/*" EsNode "$run/config"
}

ready() { curl -sf -m 5 "http://127.0.0.1:$port/_cluster/health?wait_for_status=yellow&timeout=4s"; }

address() { echo "url=http://127.0.0.1:$port snapshots=$run/snapshots"; }
