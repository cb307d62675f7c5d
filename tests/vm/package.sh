# What installation and purge share: what is there of ours, and at all; sourced by them, in the guest.
# shellcheck shell=bash

# ours FILES: all that has our name in it, wherever; but the logs, and what the account tools keep of the file before.
ours() {
    grep -i verdict "$1"
    find /run /dev /tmp /var/tmp /root /var/log /var/lib/dpkg /var/lib/systemd -path /run/vm -prune -o -iname '*verdict*' -print
    getent passwd verdictd
    getent group verdictd
    systemctl list-unit-files --no-legend '*verdict*'
    systemctl list-units --all --no-legend '*verdict*'
    # Where else a package leaves its name.
    grep -rls --exclude='*-' verdict /etc /run/systemd /usr/lib/systemd /usr/lib/sysusers.d /usr/lib/tmpfiles.d /var/lib/systemd
}

# Every file, but what systemd, logins and dpkg write for themselves.
everything() {
    find / -xdev \( -path /var/lib/dpkg -o -path /var/lib/systemd -o -path /var/log -o -path /root -o -path /tmp -o -path /var/tmp \
        -o -path '/etc/*-' -o -path "$PWD" \) -prune -o -printf '%p %u:%g %m\n' | sort
}
