/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's end of the conversation with the runner (provisioner/runner/protocol.h): one function for each thing the runner does.
 *
 * The guest is hostile. Lengths are bounded, every wait has a limit, and an answer that was not asked for ends the
 * conversation: the channel is then dead, @on_dead is called once (to end the virtual machine) and every later call
 * fails at once. Waiting ends when the user interrupts.
 *
 *     hello -> [ begin -> exec, put, get ... -> end ]... -> quit
 */
#ifndef KILN_BAKER_GUEST_CHANNEL_H
#define KILN_BAKER_GUEST_CHANNEL_H

#include "provisioner/guest.h"

typedef struct GuestChannel GuestChannel;

/* Takes @fd, a stream socket. @on_dead may be NULL; it is called on the caller's thread, from inside the
 * failing call. */
GuestChannel *guest_channel_new(int fd, void (*on_dead)(void *arg), void *arg);
void guest_channel_free(GuestChannel *channel);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GuestChannel, guest_channel_free)

bool guest_channel_is_dead(const GuestChannel *channel);

/* Waits for the runner to start. */
bool guest_channel_hello(GuestChannel *channel, double timeout, GError **error);

/* What an implementation that talks to a runner starts with; the slots below are then its own. */
typedef struct GuestOverChannel {
    Guest base;
    GuestChannel *channel;
} GuestOverChannel;

bool guest_channel_begin(Guest *guest, const GuestStep *step, GError **error);
bool guest_channel_exec(Guest *guest, const GuestExec *exec, int *ret_exit, GError **error);
bool guest_channel_put(Guest *guest, int fd, const char *path, const GuestFile *meta, GError **error);
bool guest_channel_get(Guest *guest, const char *path, int fd, uint64_t max, GError **error);
bool guest_channel_stat(Guest *guest, const char *path, char *ret_type, GuestFile *ret_meta, GError **error);
bool guest_channel_mkdir(Guest *guest, const char *path, const GuestFile *meta, GError **error);
bool guest_channel_symlink(Guest *guest, const char *target, const char *path, GError **error);
bool guest_channel_remove(Guest *guest, const char *path, GError **error);
bool guest_channel_grow(Guest *guest, bool *ret_grown, GError **error);
bool guest_channel_list(Guest *guest, const char *path, char ***ret, GError **error);
bool guest_channel_shell(Guest *guest, const GuestShell *shell, int *ret_exit, GError **error);
bool guest_channel_end(Guest *guest, GError **error);
bool guest_channel_walk(Guest *guest, const GuestWalk *walk, GError **error);

/* All but begin and end, which the network's link goes with. */
#define GUEST_CHANNEL_OPS                                                                                    \
    .exec = guest_channel_exec, .put = guest_channel_put,                      \
    .get = guest_channel_get, .stat = guest_channel_stat, .mkdir = guest_channel_mkdir,                      \
    .grow = guest_channel_grow, .symlink = guest_channel_symlink, .remove = guest_channel_remove, .list = guest_channel_list,                \
    .shell = guest_channel_shell, .walk = guest_channel_walk

/* @trim: give free space back first. Every freeze needs its thaw. */
bool guest_channel_freeze(GuestChannel *channel, bool trim, GError **error);
bool guest_channel_thaw(GuestChannel *channel, GError **error);

/* Ends the runner, after the step if one is open; returns when the guest's file systems can be unmounted. */
bool guest_channel_quit(GuestChannel *channel, GError **error);

#endif
