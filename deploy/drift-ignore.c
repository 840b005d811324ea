/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shipped list. Each line is here because a system that nobody touches writes there; a path that could carry a change of behaviour
 * (units, cron tables, boot entries, keys of users, /usr, /opt, /srv) never gets in. kiln-deploy(7) shows the same table.
 */
#include "deploy/drift-ignore.h"

#include "base/glob.h"

#include <string.h>

static const DriftIgnore shipped[] = {
    {"/var/log/**", "logs", false},
    {"/run/**", "is in memory on a running system", false},
    {"/tmp/**", "temporary files", false},
    {"/var/tmp/**", "temporary files", false},
    {"/var/cache/**", "can be made again", false},
    {"/var/spool/postfix/**", "queues of mail", false},
    {"/var/spool/exim4/**", "queues of mail", false},
    {"/var/spool/rsyslog/**", "queues of logs", false},
    {"/etc/machine-id", "drawn at the first boot", false},
    {"/var/lib/dbus/machine-id", "drawn at the first boot", false},
    {"/etc/ssh/ssh_host_*_key", "host keys are drawn at the first boot", false},
    {"/etc/ssh/ssh_host_*_key.pub", "host keys are drawn at the first boot", false},
    {"/etc/hostname", "given by cloud-init or DHCP", false},
    {"/etc/resolv.conf", "given by DHCP", false},
    {"/etc/.updated", "systemd's note of the boot after an update", false},
    {"/var/.updated", "systemd's note of the boot after an update", false},
    {"/etc/.pwd.lock", "lock of the password file, empty", false},
    {"/etc/adjtime", "drift of the hardware clock", false},
    {"/etc/fake-hwclock.data", "time of the last shutdown", false},
    {"/var/lib/dhcp/**", "leases", false},
    {"/var/lib/dhcpcd/**", "leases", false},
    {"/var/lib/NetworkManager/**", "leases and seen networks", false},
    {"/var/lib/systemd/random-seed", "renewed at each boot", false},
    {"/var/lib/systemd/credential.secret", "drawn at the first boot", false},
    {"/var/lib/systemd/catalog/database", "index of log messages", false},
    {"/var/lib/systemd/timers/**", "times of the last runs", false},
    {"/var/lib/systemd/timesync/**", "time of the last synchronisation", false},
    {"/var/lib/systemd/linger", "made empty by systemd-logind; what is in it starts services and is told", true},
    {"/var/lib/systemd/rfkill/**", "switches of radio devices", false},
    {"/var/lib/systemd/backlight/**", "brightness of screens", false},
    {"/var/lib/systemd/coredump/**", "crashes, told by the logs", false},
    {"/var/lib/systemd/pstore/**", "crashes of the kernel", false},
    {"/var/lib/private/**", "state of services with dynamic users", false},
    {"/var/lib/cloud/**", "cloud-init's notes of this instance", false},
    {"/var/lib/chrony/**", "drift of the clock", false},
    {"/var/lib/ntpsec/**", "drift of the clock", false},
    {"/var/lib/logrotate/**", "times of the last rotations", false},
    {"/var/lib/apt/periodic/**", "times of the last runs", false},
    {"/var/lib/apt/daily_lock", "lock, empty", false},
    {"/var/lib/man-db/auto-update", "time of the last run", false},
    {"/var/lib/misc/random-seed", "renewed at each boot", false},
    {"/var/lib/urandom/random-seed", "renewed at each boot", false},
    {"/var/lib/nginx/**", "bodies of requests under way", false},
    {"/.autorelabel", "SELinux labels were set at the first boot", false},
    {"(swap on partition *)", "memory that was swapped out", false},
    {.glob = NULL},
};

const DriftIgnore *drift_ignore_shipped(void)
{
    return shipped;
}

/* A glob without a leading slash, as of an entry in parentheses, is one part. */
static bool matches(const char *glob, char *const *path, bool inside)
{
    g_auto(GStrv) parts = g_strsplit(*glob == '/' ? glob + 1 : glob, "/", -1);

    return *glob && glob_match_parts(parts, path, inside);
}

/* The mount point itself is the image's folder, whose attributes the mounted volume hides. */
static bool on_volume(const InstanceShape *shape, const char *path)
{
    for (guint i = 0; shape->volumes && i < shape->volumes->len; i++) {
        const VolumeSpec *volume = g_ptr_array_index(shape->volumes, i);
        size_t size = volume->mount ? strlen(volume->mount) : 0;

        while (size > 1 && volume->mount[size - 1] == '/')
            size--;
        if (size > 1 && strncmp(path, volume->mount, size) == 0 && (path[size] == '/' || path[size] == '\0'))
            return true;
    }
    return false;
}

bool drift_ignored(const GroupSpec *spec, const char *path)
{
    g_auto(GStrv) parts = g_strsplit(*path == '/' ? path + 1 : path, "/", -1);

    for (const DriftIgnore *ignore = shipped; ignore->glob; ignore++)
        if (matches(ignore->glob, parts, !ignore->alone))
            return true;
    if (on_volume(&spec->shape, path))
        return true;
    for (char **glob = spec->drift_ignore; glob && *glob; glob++)
        if (matches(*glob, parts, true))
            return true;
    return false;
}
