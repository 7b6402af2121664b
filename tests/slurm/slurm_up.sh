#!/usr/bin/env bash
# Start a real Slurm with one node and the partitions a100 and h200 on this machine: Debian 12, root, no systemd needed.
#
#   slurm_up.sh               what the tests need; installs slurm-wlm and munge where they are missing
#   slurm_up.sh --accounting  with slurmdbd and MariaDB, so that `sacct` tells TIMEOUT from NODE_FAIL
#
# It can be repeated: what runs and is as it should be is left alone. It refuses to touch a Slurm that it did not make.
# slurm_down.sh stops what this started.
set -euo pipefail
cd "$(dirname "$0")"

ETC=/etc/slurm
RUN=/run/slurm
DATABASE=/var/lib/oodal-slurm-accounting
MARK='# made by aiida-oodal tests/slurm/slurm_up.sh'
ACCOUNTING=0
[ "${1:-}" = --accounting ] && ACCOUNTING=1

say() { echo "slurm_up: $*"; }
fail() { echo "slurm_up: $*" >&2; exit 1; }

# alive PIDFILE NAME: the process of the file runs and is what we think it is.
alive() { [ -s "$1" ] && [ "$(cat "/proc/$(cat "$1")/comm" 2>/dev/null)" = "$2" ]; }

# wait_until SECONDS COMMAND...
wait_until() {
    local end=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.2; done
}

install_packages() { # only those of which the program is missing: PROGRAM PACKAGE ...
    local missing=()
    while [ $# -gt 0 ]; do [ -x "$1" ] || missing+=("$2"); shift 2; done
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Package lists may be absent or out of date; the daemons are started below, not by their packages.
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 \
        || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
}

start_munge() {
    install -d -o munge -g munge -m 0755 /run/munge
    install -d -o munge -g munge -m 0700 /var/lib/munge /var/log/munge /etc/munge
    [ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=128 count=1 status=none
    chown munge:munge /etc/munge/munge.key
    chmod 0400 /etc/munge/munge.key
    munge --no-input >/dev/null 2>&1 && return
    rm -f /run/munge/munge.socket.2*
    setpriv --reuid=munge --regid=munge --clear-groups /usr/sbin/munged
    wait_until 10 munge --no-input || fail 'munged does not answer; see /var/log/munge/munged.log'
    touch "$RUN/munged-is-ours"
}

# put NAME < CONTENT: write a file of /etc/slurm, marked as ours; true if it changed.
put() {
    local new
    new=$(mktemp)
    { echo "$MARK"; cat; } >"$new"
    if cmp -s "$new" "$ETC/$1"; then rm "$new"; return 1; fi
    install -m "${2:-644}" "$new" "$ETC/$1"
    rm "$new"
}

configure() { # true if something changed
    local changed=1
    put slurm.conf <slurm.conf && changed=0
    put gres.conf <gres.conf && changed=0
    local storage=(AccountingStorageType=accounting_storage/none)
    [ $ACCOUNTING = 0 ] || storage=(AccountingStorageType=accounting_storage/slurmdbd AccountingStorageHost=localhost)
    printf '%s\n' "${storage[@]}" | put accounting.conf && changed=0
    return $changed
}

start_accounting() {
    local sql=(mariadb -S "$DATABASE/socket")
    if ! alive "$DATABASE/mariadb.pid" mariadbd; then
        install -d -o mysql -g mysql "$DATABASE"
        [ -d "$DATABASE/data" ] || mariadb-install-db --no-defaults --user=mysql --datadir="$DATABASE/data" --skip-test-db >/dev/null
        setsid /usr/sbin/mariadbd --no-defaults --user=mysql --datadir="$DATABASE/data" --socket="$DATABASE/socket" \
            --pid-file="$DATABASE/mariadb.pid" --skip-networking --innodb-flush-log-at-trx-commit=2 \
            --innodb-buffer-pool-size=64M </dev/null >"$DATABASE/mariadb.log" 2>&1 &
        wait_until 60 "${sql[@]}" -e 'select 1' || fail "MariaDB does not answer; see $DATABASE/mariadb.log"
    fi
    "${sql[@]}" -e "create database if not exists slurm_acct_db;
        create user if not exists slurm@localhost identified by 'slurm'; grant all on slurm_acct_db.* to slurm@localhost"
    printf '%s\n' AuthType=auth/munge DbdHost=localhost DbdAddr=127.0.0.1 SlurmUser=root PidFile=$RUN/slurmdbd.pid \
        LogFile=/var/log/slurm/slurmdbd.log StorageType=accounting_storage/mysql StorageHost=localhost \
        StorageUser=slurm StoragePass=slurm StorageLoc=slurm_acct_db | put slurmdbd.conf 600 || true
    if ! alive $RUN/slurmdbd.pid slurmdbd; then
        # For localhost the client library takes its default socket whatever it is told.
        install -d -o mysql -g mysql /run/mysqld
        ln -sfn "$DATABASE/socket" /run/mysqld/mysqld.sock
        setsid /usr/sbin/slurmdbd </dev/null >/dev/null 2>&1
        wait_until 30 sacctmgr -n show cluster || fail 'slurmdbd does not answer; see /var/log/slurm/slurmdbd.log'
    fi
    sacctmgr -n show cluster | grep -qw oodal || sacctmgr -i add cluster oodal >/dev/null
    say 'accounting is up'
}

node_is_up() {
    case "$(sinfo --noheader --Node --nodes=localhost --format=%T | head -1)" in
        idle | mixed | allocated) return 0 ;;
        # Left over from an earlier life, or from a test.
        down* | drain*) scontrol update NodeName=localhost State=RESUME ;;
    esac
    return 1
}

[ "$(id -u)" = 0 ] || fail 'root is needed: the daemons switch users and install packages'
if [ -e $ETC/slurm.conf ] && ! grep -qF "$MARK" $ETC/slurm.conf && [ "${OODAL_SLURM_OVERWRITE:-0}" != 1 ]; then
    fail "$ETC/slurm.conf is not ours: this machine belongs to a Slurm cluster. OODAL_SLURM_OVERWRITE=1 replaces it."
fi
install_packages /usr/sbin/slurmctld slurm-wlm /usr/sbin/munged munge
[ $ACCOUNTING = 0 ] || install_packages /usr/sbin/slurmdbd slurmdbd /usr/sbin/mariadbd mariadb-server
install -d $ETC $RUN /var/log/slurm /var/spool/slurmctld /var/spool/slurmd/gpus
touch /var/spool/slurmd/gpus/{a100,h200}_{0..15}

start_munge
if configure; then ./slurm_down.sh --only-slurm; fi
[ $ACCOUNTING = 0 ] || start_accounting
alive $RUN/slurmctld.pid slurmctld || setsid /usr/sbin/slurmctld </dev/null >/dev/null 2>&1
alive $RUN/slurmd.pid slurmd || setsid /usr/sbin/slurmd -N localhost </dev/null >/dev/null 2>&1
if ! wait_until 60 node_is_up; then
    tail -n 20 /var/log/slurm/slurmctld.log /var/log/slurm/slurmd.log >&2
    fail 'the node does not come up'
fi
timeout 60 sbatch --quiet --wait --partition=a100 --mem=60G --gres=gpu:a100:1 --output=/dev/null --wrap=true \
    || fail 'a job that asks for 60 GB and a GPU of partition a100 does not run'
say "partitions a100 and h200 are up$([ $ACCOUNTING = 0 ] || echo ', with accounting')"
