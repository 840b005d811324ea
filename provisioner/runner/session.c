/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session: from the mount of the guest's disk to its unmount.
 *
 * It makes the guest its root in a mount namespace of its own, begins steps, and freezes the file systems between them
 * so that the host can take a checkpoint. What it never does is run a program of the guest; steps do.
 */
#include "provisioner/runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DISKS_MAX 64

/* The guest's mounted file systems, and while they are frozen a descriptor of each. */
typedef struct Disks {
    char *paths[DISKS_MAX]; /* in the guest; parents before children, as they were mounted */
    int fds[DISKS_MAX];
    int n;
} Disks;

typedef struct Session {
    Wire *wire;
    const RunnerOptions *options;
    Disks disks;
    Step step;
    StepShared *shared;
    bool card_up;
} Session;

/* /proc/mounts writes blanks as \040 and the like. */
static void unescape(char *text)
{
    char *out = text;

    for (; *text; text++) {
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] && text[3]) {
            *out++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
            text += 3;
        } else {
            *out++ = *text;
        }
    }
    *out = '\0';
}

static void disks_collect(Disks *disks, const char *root)
{
    FILE *f = fopen("/proc/self/mounts", "re");
    size_t skip = strlen(root);
    char *line = NULL, *save;
    size_t room = 0;

    while (f && disks->n < DISKS_MAX && getline(&line, &room, f) > 0) {
        char *device = strtok_r(line, " ", &save), *path = strtok_r(NULL, " ", &save);

        if (!device || !path || strncmp(device, "/dev/", 5) != 0)
            continue;
        unescape(path);
        if (strncmp(path, root, skip) != 0 || (path[skip] != '/' && path[skip] != '\0'))
            continue;
        disks->fds[disks->n] = -1;
        disks->paths[disks->n++] = strdup(path[skip] ? path + skip : "/");
    }
    free(line);
    if (f)
        fclose(f);
}

/* pivot_root rather than chroot: a chroot is left with two calls, and then the appliance's own files are the
 * step's. */
static int enter_root(const char *root, bool host_test)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return errno;
    if (host_test && mount(root, root, NULL, MS_BIND | MS_REC, NULL) < 0)
        return errno;
    if (chdir(root) < 0)
        return errno;
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        if (umount2(".", MNT_DETACH) < 0)
            return errno;
    } else if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 ||
               chroot(".") < 0) { /* an initramfs cannot be pivoted away */
        return errno;
    }
    return chdir("/") < 0 ? errno : 0;
}

static int thaw(Disks *disks)
{
    int err = 0;

    for (int i = 0; i < disks->n; i++) {
        if (disks->fds[i] < 0)
            continue;
        if (ioctl(disks->fds[i], FITHAW, 0) < 0)
            err = errno;
        close(disks->fds[i]);
        disks->fds[i] = -1;
    }
    return err;
}

/* What is freed can be trimmed once that is committed. A file system that cannot is not smaller for it, nothing else. */
static void trim_one(const char *path)
{
    struct fstrim_range range = {.len = UINT64_MAX};
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (syncfs(fd) == 0)
        (void)ioctl(fd, FITRIM, &range);
    close(fd);
}

static int freeze_one(Disks *disks, int i)
{
    int fd = open(disks->paths[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return errno;
    if (syncfs(fd) == 0 && ioctl(fd, FIFREEZE, 0) == 0) {
        disks->fds[i] = fd;
        return 0;
    }
    close(fd);
    /* FAT cannot freeze: it is synced. Busy: another mount of a file system that we froze already. */
    return errno == EOPNOTSUPP || errno == ENOTTY || errno == EBUSY || errno == EROFS ? 0 : errno;
}

/* Children before parents. All are trimmed first: subvolumes are one file system, which is frozen with the first of them. */
static int freeze(Disks *disks, bool trim, const char **ret_path)
{
    for (int i = 0; trim && i < disks->n; i++)
        trim_one(disks->paths[i]);
    for (int i = disks->n - 1; i >= 0; i--) {
        int err = freeze_one(disks, i);

        if (err) {
            *ret_path = disks->paths[i];
            (void)thaw(disks);
            return err;
        }
    }
    return 0;
}

/* A kernel refuses a wall clock that is older than its own uptime; the nearest it takes is good enough. */
static int set_clock(struct timespec wanted)
{
    struct timespec up;

    if (clock_settime(CLOCK_REALTIME, &wanted) == 0)
        return 0;
    if (errno != EINVAL || clock_gettime(CLOCK_MONOTONIC, &up) < 0)
        return errno;
    up.tv_sec += 1;
    return clock_settime(CLOCK_REALTIME, &up) < 0 ? errno : 0;
}

static void set_deadline(Step *step, uint32_t ms)
{
    step->deadline = (struct timespec){0};
    if (!ms)
        return;
    (void)clock_gettime(CLOCK_MONOTONIC, &step->deadline);
    step->deadline.tv_sec += ms / 1000;
    step->deadline.tv_nsec += (long)(ms % 1000) * 1000000;
    if (step->deadline.tv_nsec >= 1000000000) {
        step->deadline.tv_sec++;
        step->deadline.tv_nsec -= 1000000000;
    }
}

/* What must be right before the step's process exists. Returns an errno. */
static int begin_prepare(Session *s, WireReader *payload, const char **ret_what)
{
    Step *step = &s->step;
    struct timespec clock;
    uint64_t flags;
    int err = 0;

    *step = (Step){.host_test = s->options->host_test};
    flags = wire_get_number(payload, 1);
    step->network = flags & BEGIN_NETWORK;
    step->booted = flags & BEGIN_BOOTED;
    clock.tv_sec = (time_t)wire_get_number(payload, 8);
    clock.tv_nsec = (long)wire_get_number(payload, 4);
    set_deadline(step, (uint32_t)wire_get_number(payload, 4));
    *ret_what = "the request";
    if (payload->bad)
        return EPROTO;
    *ret_what = "the clock";
    if (!step->host_test)
        err = set_clock(clock);
    *ret_what = "the network card";
    if (!err && step->network && !step->host_test && !s->card_up) {
        err = network_up_card();
        s->card_up = !err;
    }
    return err ? err : place_make_all(step, ret_what);
}

/* The process that is the step; it owns the port until it ends. False when the session cannot go on. */
static bool step_run(Session *s)
{
    unsigned long flags =
        CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | (s->step.network ? 0 : CLONE_NEWNET);
    pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    int status = -1;

    if (pid == 0)
        step_main(s->wire, &s->step, s->shared);
    if (pid < 0) {
        wire_err(s->wire, errno, "cannot make the step's namespaces");
        place_undo_all(&s->step);
        return true;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    place_undo_all(&s->step);
    if (WIFEXITED(status) && WEXITSTATUS(status) == STEP_ENDED) {
        s->wire->request = s->shared->end_request;
        wire_ok(s->wire);
        return true;
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == STEP_FAILED_TO_BEGIN;
}

static bool begin_answer(Session *s, WireReader *payload)
{
    const char *what = "";
    int err = begin_prepare(s, payload, &what);

    if (!err)
        return step_run(s);
    place_undo_all(&s->step);
    wire_err(s->wire, err, "cannot prepare %s for the step", what);
    return true;
}

static void freeze_answer(Session *s, WireReader *payload)
{
    const char *path = "?";
    int err = freeze(&s->disks, wire_get_number(payload, 1) != 0, &path);

    if (err)
        wire_err(s->wire, err, "cannot freeze the file system on '%s'", path);
    else
        wire_ok(s->wire);
}

static void thaw_answer(Session *s)
{
    int err = thaw(&s->disks);

    if (err)
        wire_err(s->wire, err, "cannot thaw the guest's file systems");
    else
        wire_ok(s->wire);
}

static void say_hello(Wire *wire)
{
    uint8_t buf[8];
    WireWriter w = {buf, 0, sizeof buf, false};

    wire->request = 0;
    wire_put_number(&w, WIRE_MAGIC, 4);
    wire_put_number(&w, WIRE_VERSION, 4);
    wire_send(wire, WIRE_HELLO, buf, w.size);
}

static int serve(Session *s)
{
    uint16_t type;
    WireReader payload;

    while (wire_receive(s->wire, &type, &payload)) {
        switch (type) {
        case WIRE_BEGIN:
            if (!begin_answer(s, &payload))
                return 1;
            break;
        case WIRE_FREEZE:
            freeze_answer(s, &payload);
            break;
        case WIRE_THAW:
            thaw_answer(s);
            break;
        case WIRE_WALK:
            walk_answer(s->wire, &payload);
            break;
        case WIRE_QUIT:
            wire_ok(s->wire);
            return 0;
        default:
            if (!files_answer(s->wire, type, &payload))
                wire_err(s->wire, EPROTO, "only a step can do that");
        }
    }
    return 1;
}

int session_run(Wire *wire, const RunnerOptions *options)
{
    static Session session;
    struct rlimit files = {65536, 65536}; /* remove holds one per level */
    int err, status;

    (void)setrlimit(RLIMIT_NOFILE, &files);
    session = (Session){.wire = wire, .options = options};
    session.shared =
        mmap(NULL, sizeof *session.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (session.shared == MAP_FAILED)
        return 1;
    if (!options->host_test)
        disks_collect(&session.disks, options->root);
    err = enter_root(options->root, options->host_test);
    if (err) {
        wire->request = 0;
        wire_err(wire, err, "cannot enter the guest's root");
        return 1;
    }
    (void)umask(0);
    say_hello(wire);
    status = serve(&session);
    (void)thaw(&session.disks); /* the host is gone; frozen file systems would hang whoever unmounts them */
    return status;
}
