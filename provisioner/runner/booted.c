/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that were written for a cloud image which has booted: they call sudo, and wait until cloud-init is done. For the time of such a
 * step both are there; nothing of it is left when the step ends.
 *
 *     /usr/bin/sudo                           where the guest has none: passes through, for steps run as root
 *     cloud-init                              "status" says done; everything else is the guest's own, which stands aside meanwhile
 *     shutdown, reboot, poweroff, halt        say that there is nothing to do, and end well: what follows a reboot can follow here, too
 *     /var/lib/cloud/instance/boot-finished   on the disk
 *     /run/cloud-init/                        on the step's tmpfs
 */
#include "provisioner/runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASIDE ".kiln" /* a folder beside the program, which keeps its name there */

/* What sudo takes is taken; root needs no password, so nothing is read from standard input, as with sudo itself. */
static const char sudo_text[] =
    "#!/bin/sh\n"
    "# Made by kiln for the time of a bake step: the guest has no sudo, and steps run as root.\n"
    "user=root login= shell=\n"
    "while [ $# -gt 0 ]; do\n"
    "    case $1 in\n"
    "    --) shift; break ;;\n"
    "    -u|--user) user=${2:-root}; shift; [ $# -gt 0 ] && shift ;;\n"
    "    --user=*) user=${1#*=}; shift ;;\n"
    "    -u?*) user=${1#-u}; shift ;;\n"
    "    -p|-g|-C|-r|-t|-T|-U|-D|-R|-a|-c|--prompt|--group|--close-from|--role|--type|--other-user|--chdir|--chroot|--command-timeout)\n"
    "        shift; [ $# -gt 0 ] && shift ;;\n"
    "    -i|--login) login=1; shift ;;\n"
    "    -s|--shell) shell=1; shift ;;\n"
    "    -V|--version) echo 'sudo of kiln: passes through'; exit 0 ;;\n"
    "    -[kKvl]|--reset-timestamp|--remove-timestamp|--validate|--list)\n"
    "        shift; [ $# -gt 0 ] || exit 0 ;;\n"
    "    --*) shift ;;\n"
    "    -*) case $1 in *i*) login=1 ;; esac\n"
    "        case $1 in *s*) shell=1 ;; esac\n"
    "        case $1 in *u) user=${2:-root}; shift ;; *[pgCrtTUDRac]) shift ;; esac\n"
    "        [ $# -gt 0 ] && shift ;;\n"
    "    *) break ;;\n"
    "    esac\n"
    "done\n"
    "while [ $# -gt 0 ]; do\n"
    "    case $1 in [A-Za-z_]*=*) export \"$1\"; shift ;; *) break ;; esac\n"
    "done\n"
    "SUDO_USER=root SUDO_UID=0 SUDO_GID=0 SUDO_COMMAND=$*\n"
    "export SUDO_USER SUDO_UID SUDO_GID SUDO_COMMAND\n"
    "case $user in root|'#0'|0) ;; *)\n"
    "    [ -z \"$login$shell\" ] || [ $# -gt 0 ] || exec su \"$user\"\n"
    "    if command -v runuser >/dev/null 2>&1; then exec runuser -u \"$user\" -- \"$@\"; fi\n"
    "    exec su -s /bin/sh \"$user\" -c 'exec \"$0\" \"$@\"' -- \"$@\" ;;\n"
    "esac\n"
    "[ -z \"$login\" ] || { HOME=/root; export HOME; cd /root 2>/dev/null; }\n"
    "if [ $# -eq 0 ]; then\n"
    "    [ -n \"$login$shell\" ] && exec \"${SHELL:-/bin/sh}\"\n"
    "    echo 'usage: sudo [-u user] command' >&2\n"
    "    exit 1\n"
    "fi\n"
    "[ -z \"$login$shell\" ] || [ $# -gt 1 ] || exec \"${SHELL:-/bin/sh}\" -c \"$1\"\n"
    "exec \"$@\"\n";

#define CLOUD_INIT_TEXT(OTHERWISE)                                                                           \
    "#!/bin/sh\n"                                                                                            \
    "# Made by kiln for the time of a bake step: nothing boots, so there is nothing to wait for.\n"          \
    "for word; do\n"                                                                                         \
    "    case $word in\n"                                                                                    \
    "    -*) continue ;;\n"                                                                                  \
    "    status)\n"                                                                                          \
    "        case \" $* \" in\n"                                                                             \
    "        *json*) echo '{\"boot_status_code\": \"enabled-by-generator\", \"datasource\": \"nocloud\", "   \
    "\"detail\": \"DataSourceNoCloud\", \"errors\": [], \"extended_status\": \"done\", "                     \
    "\"recoverable_errors\": {}, \"status\": \"done\"}' ;;\n"                                                \
    "        *' -l '*|*--long*) printf 'status: done\\nboot_status_code: enabled-by-generator\\n"            \
    "detail: DataSourceNoCloud\\nerrors: []\\n' ;;\n"                                                        \
    "        *) echo 'status: done' ;;\n"                                                                    \
    "        esac\n"                                                                                         \
    "        exit 0 ;;\n"                                                                                    \
    "    *) break ;;\n"                                                                                      \
    "    esac\n"                                                                                             \
    "done\n" OTHERWISE

static const char cloud_init_text[] = CLOUD_INIT_TEXT("exec \"${0%/*}/" ASIDE "/${0##*/}\" \"$@\"\n");
static const char cloud_init_alone_text[] =
    CLOUD_INIT_TEXT("[ \"$1\" = clean ] && exit 0\n"
                    "echo 'cloud-init: not found (kiln answers status alone)' >&2\n"
                    "exit 127\n");

/* Whoever looks whether the machine has booted anew (Ansible's reboot) looks at the boot's ID. */
static const char off_text[] =
    "#!/bin/sh\n"
    "# Made by kiln for the time of a bake step: the guest is not booted.\n"
    "echo \"${0##*/}: nothing is done: the guest is not booted\" >&2\n"
    "id=/proc/sys/kernel/random\n"
    "{ cat $id/uuid >/run/.kiln-boot-id && mount -o bind /run/.kiln-boot-id $id/boot_id; } 2>/dev/null\n"
    "exit 0\n";

static bool is_there(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static const char *find_program(const char *name, char out[WIRE_PATH_MAX])
{
    static const char *const folders[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"};

    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        (void)snprintf(out, WIRE_PATH_MAX, "%s/%s", folders[i], name);
        if (is_there(out))
            return out;
    }
    return NULL;
}

/* The program at @path stands aside for @text. */
static int place_shim(Step *step, const char *path, const char *text)
{
    char folder[WIRE_PATH_MAX + sizeof ASIDE], aside[2 * WIRE_PATH_MAX];
    int err;

    (void)snprintf(folder, sizeof folder, "%.*s/" ASIDE, (int)(strrchr(path, '/') - path), path);
    (void)snprintf(aside, sizeof aside, "%s/%s", folder, strrchr(path, '/') + 1);
    err = place_folder(step, folder);
    return err ? err : place_instead(step, path, aside, text);
}

static int place_off(Step *step)
{
    static const char *const names[] = {"shutdown", "reboot", "poweroff", "halt"};
    char path[WIRE_PATH_MAX];
    int err = 0;

    for (size_t i = 0; i < sizeof names / sizeof *names && !err; i++)
        if (find_program(names[i], path))
            err = place_shim(step, path, off_text);
    return err;
}

static int place_programs(Step *step)
{
    char path[WIRE_PATH_MAX];
    struct stat st;
    int err = 0;

    if (step->host_test || !is_there("/bin/sh") || !is_there("/usr/bin"))
        return 0; /* a test's /usr is the machine's own; and without a shell nothing of ours could run */
    if (!find_program("sudo", path))
        err = place_file(step, "/usr/bin/sudo", sudo_text, 0755);
    if (!err)
        err = place_off(step);
    if (err)
        return err;
    if (!find_program("cloud-init", path))
        return place_file(step, "/usr/bin/cloud-init", cloud_init_alone_text, 0755);
    if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode)) /* a link would lead elsewhere from where it stands aside */
        return 0;
    return place_shim(step, path, cloud_init_text);
}

int booted_place(Step *step)
{
    static const char folder[] = "/var/lib/cloud/instance", finished[] = "/var/lib/cloud/instance/boot-finished";
    struct stat st;
    int err = place_programs(step);

    if (err || stat("/var/lib", &st) < 0 || stat(finished, &st) == 0 || (is_there(folder) && stat(folder, &st) < 0))
        return err;
    err = place_folder(step, "/var/lib/cloud");
    if (!err)
        err = place_folder(step, folder);
    return err ? err : place_file(step, finished, "kiln: nothing boots in a bake\n", 0644);
}

static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), err = 0;

    if (fd < 0)
        return errno;
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        err = EIO;
    close(fd);
    return err;
}

int booted_prepare(void)
{
    static const char stage[] = "{\"errors\": [], \"finished\": 1.0, \"start\": 0.0}";
    char status[1024];
    int err;

    (void)snprintf(status, sizeof status,
                   "{\"v1\": {\"datasource\": \"DataSourceNoCloud\", \"init\": %s, \"init-local\": %s, \"modules-config\": %s, "
                   "\"modules-final\": %s, \"stage\": null}}\n",
                   stage, stage, stage, stage);
    (void)mkdir("/run/cloud-init", 0755);
    err = write_text("/run/cloud-init/status.json", status);
    return err ? err : write_text("/run/cloud-init/result.json", "{\"v1\": {\"datasource\": \"DataSourceNoCloud\", \"errors\": []}}\n");
}
