#!/usr/bin/env bash
# Stop what slurm_up.sh started, and nothing else. Jobs that run are cancelled.
#
#   slurm_down.sh               stop
#   slurm_down.sh --purge       and forget: state, accounting, configuration
#   slurm_down.sh --only-slurm  slurmctld and slurmd only, jobs stay queued (slurm_up.sh does this after a change)
set -uo pipefail

RUN=/run/slurm
DATABASE=/var/lib/oodal-slurm-accounting
MARK='# made by aiida-oodal tests/slurm/slurm_up.sh'

# stop PIDFILE NAME: end the process of the file if it is what we think it is, by force after ten seconds.
stop() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ]; then
        kill "$pid"
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null
    fi
    rm -f "$1"
}

grep -qsF "$MARK" /etc/slurm/slurm.conf || { echo 'slurm_down: nothing here is ours' >&2; exit 0; }
if [ "${1:-}" != --only-slurm ]; then
    timeout 10 scancel --partition=a100,h200 2>/dev/null
    sleep 1
fi
stop $RUN/slurmd.pid slurmd
stop $RUN/slurmctld.pid slurmctld
[ "${1:-}" = --only-slurm ] && exit 0
stop $RUN/slurmdbd.pid slurmdbd
stop $DATABASE/mariadb.pid mariadbd
[ -e $RUN/munged-is-ours ] && stop /run/munge/munged.pid munged && rm -f $RUN/munged-is-ours
if [ "${1:-}" = --purge ]; then
    rm -rf /var/spool/slurmctld/* /var/spool/slurmd/* $DATABASE
    rm -f /etc/slurm/{slurm,gres,accounting,slurmdbd}.conf
fi
exit 0
