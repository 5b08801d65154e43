#!/bin/sh
# Installs the servers that the tests run against, where they are missing: PostgreSQL, PgBouncer and
# promtool, which checks what Prometheus is to read.
# The tests start servers of their own; none is left running or enabled by this script.
set -eu

has_postgres() {
    for bin in "$(pg_config --bindir 2>/dev/null)" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        "$(dirname "$(command -v initdb || echo /-)")"; do
        if [ -x "$bin/postgres" ] && [ -x "$bin/initdb" ] && [ -x "$bin/psql" ]; then
            version=$("$bin/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
            [ "$version" -ge 14 ] && return 0
        fi
    done
    return 1
}

has_pgbouncer() {
    command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ]
}

has_promtool() {
    command -v promtool >/dev/null
}

missing=
has_postgres || missing="$missing postgresql"
has_pgbouncer || missing="$missing pgbouncer"
has_promtool || missing="$missing prometheus"
[ -n "$missing" ] || exit 0

by_hand="install PostgreSQL 14 or newer, PgBouncer and promtool by hand (missing:$missing), then run this again"
if ! command -v apt-get >/dev/null; then
    echo "servers: there is no apt-get here: $by_hand" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    # `make` may run where nobody can type a password.
    if ! sudo -n true 2>/dev/null; then
        echo "servers: neither root nor sudo without a password:" \
            "run \`sudo sh tests/servers/install.sh\`, or $by_hand" >&2
        exit 1
    fi
    exec sudo -n sh "$0"
fi

# Both files are there during the installation only: afterwards the machine's own rules hold again.
no_cluster=/etc/postgresql-common/createcluster.d/dalsegno-tests.conf
no_start=/usr/sbin/policy-rc.d
[ -e "$no_start" ] && no_start=
log=$(mktemp)
trap 'rm -f "$no_cluster" "$log" ${no_start:+"$no_start"}' EXIT
trap 'exit 1' HUP INT TERM

mkdir -p "$(dirname "$no_cluster")"
echo "create_main_cluster = false" >"$no_cluster"
if [ -n "$no_start" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$no_start"
    chmod 755 "$no_start"
fi

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 </dev/null || {
        cat "$log" >&2
        echo "servers: \`apt-get $*\` failed" >&2
        exit 1
    }
}

echo "servers: installing$missing with apt-get"
apt update
# shellcheck disable=SC2086 # two words are two packages
apt install --yes --no-install-recommends $missing
if has_pgbouncer && [ "${missing#*pgbouncer}" != "$missing" ] && command -v systemctl >/dev/null; then
    systemctl disable --quiet pgbouncer
fi
if [ "${missing#*prometheus}" != "$missing" ] && command -v systemctl >/dev/null; then
    systemctl disable --quiet prometheus
fi
if ! has_postgres || ! has_pgbouncer; then
    echo "servers: apt-get's PostgreSQL is older than 14: $by_hand" >&2
    exit 1
fi
echo "servers: installed"
