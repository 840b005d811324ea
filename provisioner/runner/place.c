/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a step needs on the guest's disk for its time: mount points, policy-rc.d, a file to bind resolv.conf over.
 *
 * A step that changes nothing must leave a tree that is equal to the one before it, or the bake cache would take it
 * for a change. So everything made here is taken away again, and the folder it was made in gets its old mtime back,
 * unless the step itself wrote into that folder meanwhile.
 */
#include "provisioner/runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINKS_MAX 16
#define TEXT_MAX 8192 /* of a file of ours */

/* Debian asks this program before it starts a service (invoke-rc.d, deb-systemd-invoke); 101 means no. */
static const char policy_path[] = "/usr/sbin/policy-rc.d";
static const char policy_text[] =
    "#!/bin/sh\n# Made by kiln for the time of a bake step: no service starts in an image.\nexit 101\n";

/* Both are WIRE_PATH_MAX bytes, and every caller has checked that it fits. */
static void copy_path(char *to, const char *from)
{
    memcpy(to, from, strnlen(from, WIRE_PATH_MAX - 1) + 1);
    to[WIRE_PATH_MAX - 1] = '\0';
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static int mtime_of(const char *path, struct timespec *ret)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return errno;
    *ret = st.st_mtim;
    return 0;
}

static void set_mtime(const char *path, const struct timespec *mtime)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, *mtime};

    (void)utimensat(AT_FDCWD, path, times, 0); /* a lost mtime costs a cache hit, nothing else */
}

static Place *place_new(Step *step, const char *path, bool is_dir)
{
    Place *place = &step->places[step->n_places];
    char *slash;

    if (step->n_places == PLACE_MAX || strlen(path) >= sizeof place->path)
        return NULL;
    *place = (Place){.is_dir = is_dir};
    copy_path(place->path, path);
    copy_path(place->parent, path);
    slash = strrchr(place->parent, '/');
    slash[slash == place->parent ? 1 : 0] = '\0';
    return mtime_of(place->parent, &place->before) == 0 ? place : NULL;
}

static void place_keep(Step *step, Place *place)
{
    (void)mtime_of(place->parent, &place->after);
    step->n_places++;
}

int place_folder(Step *step, const char *path)
{
    struct stat st;
    Place *place;

    if (stat(path, &st) == 0)
        return S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
    place = place_new(step, path, true);
    if (!place)
        return ENOENT;
    if (mkdir(path, 0755) < 0)
        return errno;
    place_keep(step, place);
    return 0;
}

/* Returns an errno. */
static int make_file_now(const char *path, const char *text, mode_t mode)
{
    ssize_t size = (ssize_t)strlen(text);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode), err = 0;

    if (fd < 0)
        return errno;
    if (fchmod(fd, mode) < 0 || write(fd, text, (size_t)size) != size)
        err = errno ? errno : EIO;
    close(fd);
    return err;
}

int place_file(Step *step, const char *path, const char *text, mode_t mode)
{
    Place *place = place_new(step, path, false);
    struct stat st;
    int err;

    if (!place)
        return ENOENT;
    place->text = text;
    if (lstat(path, &st) == 0)
        return EEXIST;
    err = make_file_now(path, text, mode);
    if (!err || lstat(path, &st) == 0) /* what was begun is undone, too */
        place_keep(step, place);
    return err;
}

static bool file_is(const char *path, const char *text)
{
    static char buf[TEXT_MAX];
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf);

    if (fd >= 0)
        close(fd);
    return n == (ssize_t)strlen(text) && memcmp(buf, text, (size_t)n) == 0;
}

/* A guest's own policy stays in force; one of ours that an earlier crash left behind is ours again. */
static int make_policy(Step *step)
{
    struct stat st;

    if (step->host_test || stat("/usr/bin/dpkg", &st) < 0 || stat("/usr/sbin", &st) < 0)
        return 0; /* no Debian, nobody asks; and a test's /usr is the machine's own */
    if (file_is(policy_path, policy_text)) {
        Place *place = place_new(step, policy_path, false);

        if (place) {
            place->text = policy_text;
            place_keep(step, place);
        }
        return 0;
    }
    return lstat(policy_path, &st) == 0 ? 0 : place_file(step, policy_path, policy_text, 0755);
}

/* Removes "", "." and ".." from an absolute path without looking at the disk. */
static void tidy(char *path)
{
    char out[WIRE_PATH_MAX] = "";
    size_t used = 0;

    for (char *save = NULL, *part = strtok_r(path, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
        if (strcmp(part, ".") == 0)
            continue;
        if (strcmp(part, "..") == 0) {
            while (used && out[--used] != '/')
                ;
            out[used] = '\0';
            continue;
        }
        used += (size_t)snprintf(out + used, sizeof out - used, "/%s", part);
        if (used >= sizeof out)
            used = sizeof out - 1;
    }
    copy_path(path, out);
}

/* Follows links by hand, because the last one often leads into /run, where nothing is yet. */
static bool follow(const char *from, char out[WIRE_PATH_MAX])
{
    char target[WIRE_PATH_MAX], joined[2 * WIRE_PATH_MAX];

    copy_path(out, from);
    for (int i = 0; i < LINKS_MAX; i++) {
        ssize_t n = readlink(out, target, sizeof target - 1);

        if (n < 0) {
            tidy(out);
            return true;
        }
        target[n] = '\0';
        *strrchr(out, '/') = '\0';
        (void)snprintf(joined, sizeof joined, "%s/%s", target[0] == '/' ? "" : out, target);
        if (strlen(joined) >= WIRE_PATH_MAX)
            return false;
        copy_path(out, joined);
    }
    return false;
}

static int make_resolv_conf(Step *step)
{
    struct stat st;
    char *path = step->resolv_conf;

    if (!step->network || stat("/etc", &st) < 0 || !follow("/etc/resolv.conf", path))
        return 0;
    if (strncmp(path, "/var/run/", 9) == 0)
        memmove(path, path + 4, strlen(path + 4) + 1);
    if (strncmp(path, "/run/", 5) == 0)
        return 0; /* on the step's tmpfs, whatever is below it on the disk */
    if (stat(path, &st) == 0)
        return 0;
    if (place_file(step, path, "", 0644) != 0)
        path[0] = '\0'; /* a link to nowhere: the guest never had DNS; an address still works */
    return 0;
}

int place_instead(Step *step, const char *path, const char *aside, const char *text)
{
    struct stat st;
    Place *place;
    int err;

    if (lstat(path, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)) || lstat(aside, &st) == 0)
        return 0;
    place = place_new(step, path, false);
    if (!place)
        return ENOENT;
    place->aside = strdup(aside);
    place->text = text;
    if (!place->aside || rename(path, aside) < 0)
        return errno;
    err = make_file_now(path, text, 0755);
    place_keep(step, place);
    return err;
}

int place_make_all(Step *step, const char **ret_what)
{
    static const char *const dirs[] = {"/dev", "/proc", "/sys", "/run", "/tmp"};
    int err = 0;

    step->n_places = 0;
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs && !err; i++) {
        *ret_what = dirs[i];
        err = place_folder(step, dirs[i]);
    }
    if (!err) {
        *ret_what = policy_path;
        err = make_policy(step);
    }
    if (!err) {
        *ret_what = "/etc/resolv.conf";
        err = make_resolv_conf(step);
    }
    if (!err && step->booted) {
        *ret_what = "sudo, cloud-init and shutdown";
        err = booted_place(step);
    }
    return err;
}

/* The guest's own comes back, unless the step put something new there, or took it away. */
static bool place_return(const Place *place)
{
    if (file_is(place->path, place->text))
        return rename(place->aside, place->path) == 0;
    return unlink(place->aside) == 0;
}

static bool place_remove(const Place *place)
{
    if (place->is_dir)
        return rmdir(place->path) == 0; /* not empty: the step put something there */
    if (place->aside)
        return place_return(place);
    return file_is(place->path, place->text) && unlink(place->path) == 0;
}

void place_undo_all(Step *step)
{
    while (step->n_places > 0) {
        Place *place = &step->places[--step->n_places];
        struct timespec now;

        if (mtime_of(place->parent, &now) == 0 && place_remove(place))
            set_mtime(place->parent, same_time(&now, &place->after) ? &place->before : &now);
        free((char *)place->aside);
    }
}
