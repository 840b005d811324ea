/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Port: the guest, a root file system in which steps run. It is never booted.
 *
 * Implemented by baker (guest-libguestfs.c: the appliance; guest-fake.c: a folder on the host, for tests).
 * Call order: (open by baker) -> begin -> exec, put, get ... -> end, once per step; between steps baker calls checkpoint or rollback.
 *
 *   begin   prepares one step: services kept from starting (policy-rc.d), tmpfs on /run, resolv.conf, clock, network or none
 *   exec    runs one program in the step; nothing it started outlives the step
 *   shell   the same for a person, or for a script on standard input
 *   end     undoes what begin did; everything still running is killed
 *
 * All paths are absolute paths in the guest. Files can also be put, got and so on between steps. Not
 * thread-safe. After an error that is not about one request (the guest crashed, does not answer, the
 * user interrupts) every further call fails at once; only kill is left.
 */
#ifndef KILN_PROVISIONER_GUEST_H
#define KILN_PROVISIONER_GUEST_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct Guest Guest;

/* A line of a step's output, without newline. Called on the caller's thread. */
typedef void GuestLineFn(const char *line, bool is_stderr, void *arg);

typedef struct GuestStep {
    const char *name; /* for messages */
    bool network;
    bool booted;    /* its programs expect a machine that has booted: sudo is there, and cloud-init is done */
    int64_t clock;  /* the guest's time for steps without network (SOURCE_DATE_EPOCH); steps with network get
                       real time */
    int64_t clock_ahead; /* seconds that real time is taken to be later than it is */
    double timeout; /* seconds for the whole step; 0 is no limit */
    GuestLineFn *on_line;
    void *arg;
} GuestStep;

typedef struct GuestExec {
    const char *const *argv;
    const char *const *env; /* added to the step's base environment; "K=V" */
    const char *cwd;        /* NULL: "/" */
    /* Gets what the program prints, as it is, in place of the step's on_line. NULL: on_line does. */
    void (*output)(const void *data, size_t size, bool is_stderr, void *arg);
    void *arg;
} GuestExec;

/* What a shell in the guest is connected to. */
typedef struct GuestShell {
    bool terminal;          /* it gets a terminal; else pipes, and its output comes by lines to the step's on_line */
    const char *const *env; /* as in GuestExec */
    int in;                 /* read until its end: pipes end then, too, a terminal is hung up */
    int resized;            /* becomes readable (8 bytes) when the window may have another size; -1: never */
    char hang_up;           /* a byte of @in that hangs the terminal up; 0: none */
    void (*window)(unsigned *ret_rows, unsigned *ret_columns, void *arg);
    void (*write)(const void *data, size_t size, void *arg); /* what the terminal shows, as it is */
    void *arg;
} GuestShell;

typedef struct GuestFile {
    uint32_t uid, gid;
    uint16_t mode;
    int64_t mtime;
} GuestFile;

/* One entry of the guest's file systems. Only its form was checked: what it says is the guest's word. */
typedef struct GuestEntry {
    const char *path;   /* "" for the root, else without a slash in front; no "." or ".." in it */
    const char *target; /* of a link */
    bool again;         /* a further name of an inode that was told before */
    uint32_t mode;      /* with the type, as stat(2) gives it */
    uint32_t uid, gid, major, minor;
    int64_t mtime;
    uint32_t mtime_ns;
    uint64_t device, inode, size;
} GuestEntry;

/* What a walk is told to; parents come before what is in them. The first false ends the walk, and the guest with it. */
typedef struct GuestWalk {
    bool contents;
    bool (*entry)(const GuestEntry *entry, void *arg, GError **error);
    /* Of the last entry; before its pieces. */
    bool (*xattr)(const char *name, const void *value, size_t size, void *arg, GError **error);
    /* Of the last entry's content; offsets ascend, what lies between is zero. */
    bool (*piece)(uint64_t offset, const void *data, size_t size, void *arg, GError **error);
    void *arg;
} GuestWalk;

typedef struct GuestOps {
    const char *name;
    bool (*begin)(Guest *guest, const GuestStep *step, GError **error);
    /*
     * *ret_exit: exit code, or 128 + signal. A passed time limit is KILN_ERROR_TIMEOUT; the step can then only end. A
     * program that cannot be started is an error. What it leaves running may go on until the step ends, unheard.
     */
    bool (*exec)(Guest *guest, const GuestExec *exec, int *ret_exit, GError **error);
    /* Writes a regular file (replacing it; an existing folder is an error) from @fd's current offset to its
     * end. Parent must exist. Links are followed. @meta NULL: root's, 0644. */
    bool (*put)(Guest *guest, int fd, const char *path, const GuestFile *meta, GError **error);
    /* Reads a regular file into @fd; refused beyond @max bytes (0: no limit). */
    bool (*get)(Guest *guest, const char *path, int fd, uint64_t max, GError **error);
    /* 'f' file, 'd' folder, 'l' link that leads nowhere, 'o' other, 0 absent. Follows links. @ret_meta may be NULL. */
    bool (*stat)(Guest *guest, const char *path, char *ret_type, GuestFile *ret_meta, GError **error);
    /* With parents (root's, 0755); an existing folder is fine and stays as it is. @meta NULL: root's, 0755. */
    bool (*mkdir)(Guest *guest, const char *path, const GuestFile *meta, GError **error);
    /* Replaces a link or file. */
    bool (*symlink)(Guest *guest, const char *target, const char *path, GError **error);
    /* rm -rf; absent is fine. */
    bool (*remove)(Guest *guest, const char *path, GError **error);
    /* Names in a folder, NULL-terminated, sorted. */
    bool (*list)(Guest *guest, const char *path, char ***ret, GError **error);
    /* Runs the guest's own shell until it ends; *ret_exit as for exec. The slot may be NULL. */
    bool (*shell)(Guest *guest, const GuestShell *shell, int *ret_exit, GError **error);
    /* In a step: the root's file system takes all of its partition, where it did not. *ret_grown: it did not. The slot may be NULL. */
    bool (*grow)(Guest *guest, bool *ret_grown, GError **error);
    bool (*end)(Guest *guest, GError **error);
    /* All that is on the guest's file systems; between steps only. The slot may be NULL. */
    bool (*walk)(Guest *guest, const GuestWalk *walk, GError **error);
    /* What the last step with network tried to reach, texts for people; NULL when that is not known. The slot may be NULL. */
    const GPtrArray *(*reached)(Guest *guest);
    /* Sync and freeze; @seal is called while everything is quiet; thaw. An in-place disk is trimmed first. */
    bool (*checkpoint)(Guest *guest, bool (*seal)(void *arg, GError **error), void *arg, GError **error);
    /* Forget everything since the last checkpoint: ends an open step, unmounts, calls @drop, mounts again. */
    bool (*rollback)(Guest *guest, bool (*drop)(void *arg, GError **error), void *arg, GError **error);
    /* Unmounts cleanly and ends. Write errors surface here. Frees @guest also on failure. */
    bool (*shutdown)(Guest *guest, GError **error);
    /* Ends at once without keeping anything; frees @guest. NULL is fine. */
    void (*kill)(Guest *guest);
} GuestOps;

struct Guest { /* the first member of every implementation */
    const GuestOps *ops;
};

#endif
