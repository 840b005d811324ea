/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One step, as PID 1 of its own PID, mount, UTS and IPC namespaces (and network, when it may have none).
 *
 * When this process ends the kernel kills everything the step started, however well it hid, and drops every mount
 * made here. Only what place.c put on the disk is left for the session to undo.
 */
#include "provisioner/runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

typedef struct Mount {
    const char *type, *path;
    unsigned long flags;
    const char *data;
} Mount;

static const Mount step_mounts[] = {
    {"proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
    {"sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL},
    {"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755"},
};

static int make_node(const char *path, unsigned minor)
{
    return mknod(path, S_IFCHR | 0666, makedev(1, minor)) < 0 || chmod(path, 0666) < 0 ? errno : 0;
}

/* The kernel's own device folder; where that can't be had (tests on a host) the few nodes every program
 * expects. */
static int mount_dev(bool host_test)
{
    static const struct {
        const char *path, *target;
    } links[] = {{"/dev/fd", "/proc/self/fd"},
                 {"/dev/stdin", "fd/0"},
                 {"/dev/stdout", "fd/1"},
                 {"/dev/stderr", "fd/2"},
                 {"/dev/ptmx", "pts/ptmx"}};

    if (host_test || mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") < 0) {
        if (mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=0755") < 0)
            return errno;
        if (make_node("/dev/null", 3) || make_node("/dev/zero", 5) || make_node("/dev/full", 7) ||
            make_node("/dev/random", 8) || make_node("/dev/urandom", 9))
            return errno;
    }
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        (void)symlink(links[i].target, links[i].path); /* is there already in every step but the first */
    (void)mkdir("/dev/pts", 0755);
    (void)mkdir("/dev/shm", 01777);
    if (mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
              "newinstance,gid=5,mode=0620,ptmxmode=0666") < 0)
        return errno;
    return mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777") < 0 ? errno : 0;
}

static int write_resolv_conf(const char *path)
{
    static const char text[] = "nameserver " NETWORK_DNS "\n";
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ssize_t n;

    if (fd < 0)
        return errno;
    n = write(fd, text, sizeof text - 1);
    close(fd);
    return n == (ssize_t)sizeof text - 1 ? 0 : EIO;
}

static int write_through_tmpfs(char *path)
{
    for (char *p = path + 1; *p; p++)
        if (*p == '/') {
            *p = '\0';
            (void)mkdir(path, 0755);
            *p = '/';
        }
    return write_resolv_conf(path);
}

/* The file on the disk keeps its bytes: ours lies over it. */
static int mount_resolv_conf(Step *step)
{
    static const char ours[] = "/run/.kiln-resolv.conf";
    char *path = step->resolv_conf;
    int err;

    if (!path[0])
        return 0;
    if (strncmp(path, "/run/", 5) == 0)
        return write_through_tmpfs(path);
    err = write_resolv_conf(ours);
    if (!err && mount(ours, path, NULL, MS_BIND, NULL) < 0)
        err = errno;
    (void)unlink(ours); /* the mount keeps it */
    return err;
}

/*
 * Ansible and Puppet ask the first process which service manager is there, and both know how to do without it running. A guest whose
 * init is systemd's gets that answer; "init" sends the question on to the guest's files.
 */
static void take_init_name(void)
{
    static const char *const inits[] = {"/sbin/init", "/usr/sbin/init"};
    char target[WIRE_PATH_MAX] = "";

    for (size_t i = 0; i < sizeof inits / sizeof *inits && !target[0]; i++)
        if (readlink(inits[i], target, sizeof target - 1) < 0)
            target[0] = '\0';
    (void)prctl(PR_SET_NAME, strstr(target, "systemd") ? "systemd" : "init");
}

static int prepare(Step *step, const char **ret_what)
{
    int err = 0;

    for (size_t i = 0; i < sizeof step_mounts / sizeof *step_mounts; i++) {
        const Mount *m = &step_mounts[i];

        *ret_what = m->path;
        if (mount(m->type, m->path, m->type, m->flags, m->data) < 0)
            return errno;
    }
    *ret_what = "/dev";
    err = mount_dev(step->host_test);
    if (err)
        return err;
    (void)mkdir("/run/lock", 01777);
    (void)chmod("/run/lock", 01777); /* mkdir obeys the umask */
    *ret_what = "/etc/resolv.conf";
    err = mount_resolv_conf(step);
    if (err)
        return err;
    *ret_what = "/run/cloud-init";
    err = step->booted ? booted_prepare() : 0;
    if (err)
        return err;
    *ret_what = "the network";
    if (sethostname("localhost", 9) < 0)
        return errno;
    return step->network && step->host_test ? 0 : network_up_loopback();
}

static void serve(Wire *wire, Step *step, StepShared *shared)
{
    uint16_t type;
    WireReader payload;

    while (wire_receive(wire, &type, &payload)) {
        if (type == WIRE_END) {
            exec_kill_all();
            shared->end_request = wire->request;
            _exit(STEP_ENDED);
        }
        if (type == WIRE_EXEC)
            exec_answer(wire, step, &payload);
        else if (type == WIRE_SHELL)
            shell_answer(wire, &payload);
        else if (type == WIRE_GROW)
            grow_answer(wire);
        else if (!files_answer(wire, type, &payload))
            wire_err(wire, EPROTO, "a step cannot do that");
    }
}

void step_main(Wire *wire, Step *step, StepShared *shared)
{
    sigset_t set;
    const char *what = "";
    int err;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL); /* exec.c reads it from a descriptor */
    err = prepare(step, &what);
    if (err) {
        wire_err(wire, err, "cannot prepare %s for the step", what);
        _exit(STEP_FAILED_TO_BEGIN);
    }
    take_init_name();
    wire_ok(wire);
    serve(wire, step, shared);
    _exit(STEP_PORT_CLOSED);
}
