#!/usr/bin/env bash
# MariaDB, from Debian, with the database and user `tracardi`; options go to mariadbd.
#   MARIADB_PORT (13306), MARIADB_PASSWORD (tracardi)
ports=("${MARIADB_PORT:-13306}")
ready_s=60
stop_s=30
password=${MARIADB_PASSWORD:-tracardi}

install() { debian mariadbd mariadb-server; }

launch() {
    local user
    user=$(id -un) # also root: the data are a test's, and lie under the home of who runs it
    if ! [ -d "$run/data" ]; then
        rm -rf "$run/new"
        mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db \
            --user="$user" --datadir="$run/new" >"$run/log" 2>&1
        mv "$run/new" "$run/data"
    fi
    cat >"$run/init.sql" <<SQL
create database if not exists tracardi character set utf8mb4;
create user if not exists tracardi@'127.0.0.1';
alter user tracardi@'127.0.0.1' identified by '$password';
grant all on \`tracardi%\`.* to tracardi@'127.0.0.1';
SQL
    # The socket is named within the data folder: a path from the root could be longer than the kernel takes.
    spawn mariadbd --no-defaults --user="$user" --datadir="$run/data" --bind-address=127.0.0.1 --port="${ports[0]}" \
        --socket=mariadb.sock --pid-file="$run/mariadbd.pid" --init-file="$run/init.sql" --skip-name-resolve \
        --innodb-buffer-pool-size=128M "$@"
}

ready() { MYSQL_PWD=$password mariadb -h 127.0.0.1 -P "${ports[0]}" -u tracardi tracardi -e 'select 1'; }

address() { echo "url=mysql://tracardi:$password@127.0.0.1:${ports[0]}/tracardi"; }
