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

/* Takes @fd, a stream socket. @on_dead may be NULL; it is called on the caller's thread, from inside the failing call. */
GuestChannel *guest_channel_new(int fd, void (*on_dead)(void *arg), void *arg);
void guest_channel_free(GuestChannel *channel);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GuestChannel, guest_channel_free)

bool guest_channel_is_dead(const GuestChannel *channel);
bool guest_channel_in_step(const GuestChannel *channel);

/* Waits for the runner to start. */
bool guest_channel_hello(GuestChannel *channel, double timeout, GError **error);
bool guest_channel_begin(GuestChannel *channel, const GuestStep *step, GError **error);
bool guest_channel_exec(GuestChannel *channel, const GuestExec *exec, int *ret_exit, GError **error);
bool guest_channel_put(GuestChannel *channel, int fd, const char *path, const GuestFile *meta, GError **error);
bool guest_channel_get(GuestChannel *channel, const char *path, int fd, uint64_t max, GError **error);
bool guest_channel_stat(GuestChannel *channel, const char *path, char *ret_type, GuestFile *ret_meta, GError **error);
bool guest_channel_mkdir(GuestChannel *channel, const char *path, const GuestFile *meta, GError **error);
bool guest_channel_symlink(GuestChannel *channel, const char *target, const char *path, GError **error);
bool guest_channel_remove(GuestChannel *channel, const char *path, GError **error);
bool guest_channel_list(GuestChannel *channel, const char *path, char ***ret, GError **error);
bool guest_channel_end(GuestChannel *channel, GError **error);

/* @trim: give free space back first. Every freeze needs its thaw. */
bool guest_channel_freeze(GuestChannel *channel, bool trim, GError **error);
bool guest_channel_thaw(GuestChannel *channel, GError **error);

/* Ends the runner, after the step if one is open; returns when the guest's file systems can be unmounted. */
bool guest_channel_quit(GuestChannel *channel, GError **error);

#endif
