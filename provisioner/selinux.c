/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step has mounts of its own over /dev, /run, /tmp and others; below them are folders of the guest's disk that need labels, too. So each of the
 * guest's file systems is mounted once more, alone, and setfiles works there. In the step's own mount namespace, and on a
 * tmpfs: nothing of it stays.
 */
#include "provisioner/selinux.h"

#include "base/error.h"
#include "provisioner/guest-file.h"
#include "provisioner/provisioner.h"

#include <string.h>

#define CONFIG_MAX (64u << 10)
#define PLACE "run/.kiln-selinux" /* relative to the guest's root */

/*
 * $1: setfiles; $2: the rules. Paths are relative to the root, where the step starts: should the root ever not be where we believe, nothing outside
 * of it is touched. A guest that is a folder (KILN_FAKE_ROOT) has no mounts of its own. FAT and the like have no xattrs. setfiles
 * enters no other file system, so it is told of each, and of btrfs's subvolumes (whose roots are inode 256); -m: else it leaves out what a
 * kernel without SELinux does not mark as labelled.
 */
static const char script[] =
    "root=" PLACE "\n"
    "setfiles=${KILN_FAKE_ROOT:-}$1 rules=${KILN_FAKE_ROOT:-}$2 subvolumes=\n"
    "set --\n"
    "mkdir -p $root || exit 1\n"
    "if [ -n \"${KILN_FAKE_ROOT:-}\" ]; then root=$KILN_FAKE_ROOT; else\n"
    "cat /proc/self/mounts >$root.mounts && mount --bind / $root || exit 1\n"
    "root=/$root\n"
    "while read -r device folder type rest; do\n"
    "case $device in /dev/*) ;; *) continue ;; esac\n"
    "case $type in vfat|msdos|exfat|ntfs*|fuse*|iso9660|udf|devtmpfs|tmpfs) continue ;; btrfs) subvolumes=1 ;; esac\n"
    "case $folder in /|/etc/resolv.conf|*\\\\*) continue ;; esac\n"
    "[ -d \"$folder\" ] || continue\n"
    "mount --bind \"$folder\" \"$root$folder\" || exit 1\n"
    "set -- \"$@\" \"$root$folder\"\n"
    "done <$root.mounts\n"
    "if [ $subvolumes ]; then\n"
    "find $root -mindepth 1 -type d -inum 256 >$root.subvolumes || exit 1\n"
    "while read -r folder; do\n"
    "case \" $* \" in *\" $folder \"*) continue ;; esac\n"
    "set -- \"$@\" \"$folder\"\n"
    "done <$root.subvolumes\n"
    "fi\n"
    "fi\n"
    "\"$setfiles\" -F -m -r \"$root\" \"$rules\" \"$root\" \"$@\" || exit 1\n"
    "rm -f \"$root/.autorelabel\"\n";

/* "KEY=value" of a line, where it is that key's; NULL else. Blanks around and a comment behind are not the value's. */
static char *value_of(const char *line, const char *key)
{
    size_t size = strlen(key);

    while (*line == ' ' || *line == '\t')
        line++;
    if (strncmp(line, key, size) != 0)
        return NULL;
    line += size + strspn(line + size, " \t");
    if (*line != '=')
        return NULL;
    line += 1 + strspn(line + 1, " \t");
    return g_strndup(line, strcspn(line, " \t\r#"));
}

/* It becomes a part of a path. */
static bool is_policy_name(const char *name)
{
    return *name && strlen(name) <= 64 && *name != '.' && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == strlen(name);
}

/* The last line of a key counts, as for libselinux. */
bool provisioner_wants_labels(const char *config, char **ret_type)
{
    g_auto(GStrv) lines = g_strsplit(config, "\n", -1);
    g_autofree char *type = NULL;
    bool on = false;

    for (char **line = lines; *line; line++) {
        g_autofree char *mode = value_of(*line, "SELINUX"), *name = value_of(*line, "SELINUXTYPE");

        if (mode)
            on = g_ascii_strcasecmp(mode, "enforcing") == 0 || g_ascii_strcasecmp(mode, "permissive") == 0;
        if (name) {
            g_free(type);
            type = is_policy_name(name) ? g_steal_pointer(&name) : NULL;
        }
    }
    *ret_type = g_steal_pointer(&type);
    return on;
}

static bool read_config(Guest *guest, bool *ret_on, char **ret_type, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;

    *ret_on = false;
    *ret_type = NULL;
    if (!guest_get_bytes(guest, "/etc/selinux/config", CONFIG_MAX, &bytes, error))
        return fail_prefix(error, "is SELinux on in the guest");
    if (bytes)
        *ret_on = provisioner_wants_labels(g_bytes_get_data(bytes, NULL), ret_type); /* a NUL follows */
    return true;
}

static bool run_setfiles(const ProvisionerHost *host, Guest *guest, const char *type, const char *rules, GError **error)
{
    static const char *const places[] = {"/usr/sbin/setfiles", "/sbin/setfiles", "/usr/bin/setfiles", NULL};
    const char *setfiles = NULL;
    int code = 0;

    if (!guest_first(guest, places, &setfiles, error))
        return false;
    if (!setfiles)
        return fail(error, "SELinux is on in the guest (policy '%s'), but it has no setfiles to label its files with: install policycoreutils, or set "
                           "SELINUX=disabled in /etc/selinux/config", type);
    if (!guest_sh(guest, host, script, (const char *const[]){setfiles, rules, NULL}, NULL, &code, error))
        return false;
    return code == 0 || fail(error, "SELinux is on in the guest (policy '%s'), but its setfiles could not label its files (%d)", type, code);
}

bool selinux_relabel(const ProvisionerHost *host, Guest *guest, GError **error)
{
    g_autofree char *type = NULL, *rules = NULL, *policy = NULL;
    char has_rules, has_policy;
    bool on;

    if (!read_config(guest, &on, &type, error))
        return false;
    if (!on || !type)
        return true;
    rules = g_strdup_printf("/etc/selinux/%s/contexts/files/file_contexts", type);
    policy = g_strdup_printf("/etc/selinux/%s/policy", type);
    if (!guest_type(guest, rules, &has_rules, error) || !guest_type(guest, policy, &has_policy, error))
        return false;
    if (!has_rules && !has_policy) /* a configuration without anything behind it */
        return true;
    if (has_rules != 'f')
        return fail(error, "SELinux is on in the guest, but its policy '%s' has no rules for files ('%s')", type, rules);
    return run_setfiles(host, guest, type, rules, error);
}
