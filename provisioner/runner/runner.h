/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runner: kiln's hand inside the guest. A static program that needs nothing of the guest it works in.
 *
 *     main.c     starts in the appliance, outside the guest, and waits for the session to end
 *      \_ session.c   its own mount namespace with the guest as root; lives from mount to unmount
 *          \_ step.c      one step: PID 1 of its own namespaces, so that nothing can outlive it
 *              \_ exec.c      the step's programs
 *              \_ shell.c     a shell for whoever sits at the host
 *     place.c    what a step needs on the guest's disk, made before it and taken away after it
 *     files.c    put, get, stat, ...; answered by the step, or by the session between steps
 *     walk.c     all entries of the guest's file systems, for a host that cannot read them; answered by the session
 *     booted.c   what programs of a step find where they expect a machine that has booted
 *     grow.c     the root takes all of its partition
 *     network.c  addresses without any tool of the guest
 *     wire.c     frames on the control port
 *
 * Whoever reads the port owns it: the session hands it to the step by waiting for it to end.
 */
#ifndef KILN_RUNNER_RUNNER_H
#define KILN_RUNNER_RUNNER_H

#include "provisioner/runner/protocol.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

typedef struct Wire {
    int fd;
    uint32_t request; /* number of the request being answered */
    uint8_t payload[WIRE_PAYLOAD_MAX + 1];
} Wire;

/* False at the end of the port or when a frame makes no sense: the caller ends. @ret_payload is @wire's. */
bool wire_receive(Wire *wire, uint16_t *ret_type, WireReader *ret_payload);
/* A port that cannot be written to ends the process: nobody is there any more. */
void wire_send(Wire *wire, uint16_t type, const void *payload, size_t size);
/* The same for frames that are packed already. */
void wire_send_frames(Wire *wire, const void *frames, size_t size);
void wire_ok(Wire *wire);
void wire_ok_number(Wire *wire, uint64_t value);
void wire_err(Wire *wire, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* A string of the payload as a C string in @out; false when missing, empty or too long. */
bool wire_path(WireReader *payload, char out[WIRE_PATH_MAX]);

/* Answers a file request; false when @type is none. */
bool files_answer(Wire *wire, uint16_t type, WireReader *payload);

/* Answers WALK. */
void walk_answer(Wire *wire, WireReader *payload);

typedef struct RunnerOptions {
    const char *root;
    bool host_test; /* run by a unit test on the developer's own kernel: leave clock, hardware and file
                       systems alone */
} RunnerOptions;

/* Runs until QUIT or the end of the port; returns the exit status. */
int session_run(Wire *wire, const RunnerOptions *options);

/* --- a step --- */

#define PLACE_MAX 24

typedef struct Place { /* one thing we made on the guest's disk, and how to leave no trace of it */
    char path[WIRE_PATH_MAX];
    bool is_dir;
    const char *text;  /* of a file: what it must still hold to be ours */
    const char *aside; /* what it took the place of; NULL: nothing */
    char parent[WIRE_PATH_MAX];
    struct timespec before, after; /* the parent's mtime before and after we made it */
} Place;

typedef struct Step {
    bool network, booted, host_test;
    struct timespec deadline;        /* CLOCK_MONOTONIC; zero: none */
    char resolv_conf[WIRE_PATH_MAX]; /* where /etc/resolv.conf leads; empty: nowhere */
    Place places[PLACE_MAX];
    int n_places;
} Step;

typedef struct StepShared { /* what the step tells the session when it ends */
    volatile uint32_t end_request;
} StepShared;

enum { STEP_ENDED = 0, STEP_FAILED_TO_BEGIN = 3, STEP_PORT_CLOSED = 4 };

/* Returns an errno; on failure @ret_what names what could not be made. */
int place_make_all(Step *step, const char **ret_what);
/* Takes back what place_make_all() made, unless the step changed it. */
void place_undo_all(Step *step);

/* booted.c: what lies on the disk for the step's time, with place_file() and place_instead(); and what is on its tmpfs. Return an errno. */
int booted_place(Step *step);
int booted_prepare(void);

/* For booted.c: a folder (with those above it) or a file that is not there, made for the step's time. Return an errno. */
int place_folder(Step *step, const char *path);
int place_file(Step *step, const char *path, const char *text, mode_t mode);
/* The guest's own program @path stands at @aside meanwhile, and ours in its place. One that is no regular file is left alone. */
int place_instead(Step *step, const char *path, const char *aside, const char *text);

/* Answers GROW. */
void grow_answer(Wire *wire);

/* Runs in the step's process; never returns. Answers BEGIN itself. */
void step_main(Wire *wire, Step *step, StepShared *shared) __attribute__((noreturn));

/* Answers EXEC. */
void exec_answer(Wire *wire, Step *step, WireReader *payload);
/* Answers SHELL. */
void shell_answer(Wire *wire, WireReader *payload);
/* SIGKILL to everything in the step but us, until nothing is left. */
void exec_kill_all(void);

/* --- a program of a step, for exec.c and shell.c --- */

typedef struct Command {
    char *argv[WIRE_PAYLOAD_MAX / 4 + 1];
    char *env[WIRE_PAYLOAD_MAX / 4 + 64];
    char cwd[WIRE_PATH_MAX];
    char text[WIRE_PAYLOAD_MAX]; /* a string needs its length's 4 bytes there and 1 byte more here: it always
                                    fits */
} Command;

typedef struct Running {
    pid_t pid;
    int out, err, signals; /* out and err: -1 after their end */
    int status;
    bool ended;
} Running;

/* A vector of strings, kept in @cmd->text from *@text on; then what every program of a step finds beside them. Returns an errno. */
int exec_read_environment(WireReader *payload, Command *cmd, char **text);
/* @fds: its stdin, stdout and stderr. Returns 0, an errno, or a negative one when the folder cannot be entered. */
int exec_start(const Command *cmd, const int fds[3], bool terminal, pid_t *ret_pid);
/* A descriptor that tells of children's ends, and what to do when it does. */
int exec_signals(void);
void exec_reap(Running *run);
/* Sends on what one pipe has; false at its end. */
bool exec_forward(Wire *wire, int *fd, uint8_t stream, size_t *ret_size);
/* What a finished program left in its pipes; how it ended; the descriptors. */
void exec_drain(Wire *wire, Running *run);
void exec_send_status(Wire *wire, const Running *run);
void exec_close(Running *run);

/* Return an errno. */
int network_up_loopback(void);
int network_up_card(void);
#define NETWORK_DNS "169.254.2.3"

#endif
