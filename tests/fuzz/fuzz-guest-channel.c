/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: a guest that answers the host as it likes. Every call ends, with an answer or an error, and once the conversation is dead
 * it stays dead.
 *
 * The input is a list of frames, each "type, request, length, length bytes", so that the fuzzer need not discover the header; a first
 * byte of 0 gives the rest as raw bytes instead. All of it lies in the socket before the host asks, and then the socket ends.
 */
#include "baker/guest-channel.h"

#include "provisioner/runner/protocol.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_MAX 16384 /* fits into the socket */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void send_all(int fd, const void *data, size_t size)
{
    if (size && send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size)
        abort();
}

static void send_frames(int fd, const uint8_t *data, size_t size)
{
    while (size >= 3) {
        uint8_t header[WIRE_HEADER_SIZE];
        size_t length = MIN(data[2], size - 3);

        wire_pack_header(header, (uint32_t)length, data[1], data[0]);
        send_all(fd, header, sizeof header);
        send_all(fd, data + 3, length);
        data += 3 + length;
        size -= 3 + length;
    }
}

static void hear(const char *line, bool is_stderr, void *arg)
{
    *(size_t *)arg += strlen(line);
}

static void use_step(Guest *guest, int file)
{
    static const char *const argv[] = {"true", NULL};
    size_t heard = 0;
    const GuestStep step = {.name = "fuzz", .timeout = 1, .on_line = hear, .arg = &heard};
    const GuestExec exec = {.argv = argv};
    g_auto(GStrv) names = NULL;
    GuestFile meta;
    char type;
    int code;

    if (!guest_channel_begin(guest, &step, NULL))
        return;
    (void)guest_channel_exec(guest, &exec, &code, NULL);
    (void)guest_channel_stat(guest, "/x", &type, &meta, NULL);
    (void)guest_channel_list(guest, "/x", &names, NULL);
    (void)guest_channel_get(guest, "/x", file, 1 << 16, NULL);
    (void)guest_channel_put(guest, file, "/x", NULL, NULL);
    (void)guest_channel_mkdir(guest, "/x", NULL, NULL);
    (void)guest_channel_end(guest, NULL);
}

static bool walk_entry(const GuestEntry *entry, void *arg, GError **error)
{
    (void)arg, (void)error;
    if (!entry->path || !entry->target || *entry->path == '/' || strcmp(entry->path, "..") == 0 || g_str_has_prefix(entry->path, "../") || strstr(entry->path, "/../"))
        abort();
    return true;
}

static bool walk_xattr(const char *name, const void *value, size_t size, void *arg, GError **error)
{
    uint8_t sum = 0;

    (void)arg, (void)error;
    for (size_t i = 0; i < size; i++)
        sum ^= ((const uint8_t *)value)[i];
    return *name + sum >= 0;
}

static bool walk_piece(uint64_t offset, const void *data, size_t size, void *arg, GError **error)
{
    (void)offset;
    return walk_xattr("a", data, size, arg, error);
}

static void converse(int fd, int file)
{
    g_autoptr(GuestChannel) channel = guest_channel_new(fd, NULL, NULL);
    GuestOverChannel guest = {.channel = channel};
    const GuestWalk walk = {true, walk_entry, walk_xattr, walk_piece, NULL};
    bool dead;

    (void)guest_channel_hello(channel, 1, NULL);
    use_step(&guest.base, file);
    (void)guest_channel_freeze(channel, true, NULL);
    (void)guest_channel_thaw(channel, NULL);
    (void)guest_channel_walk(&guest.base, &walk, NULL);
    dead = guest_channel_is_dead(channel);
    if (guest_channel_quit(channel, NULL) && dead)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int file = -1;
    int pair[2];

    if (file < 0)
        file = memfd_create("fuzz", MFD_CLOEXEC);
    if (size == 0 || size > INPUT_MAX || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        return 0;
    (void)ftruncate(file, 0);
    if (data[0] == 0)
        send_all(pair[1], data + 1, size - 1);
    else
        send_frames(pair[1], data, size);
    (void)shutdown(pair[1], SHUT_WR);
    converse(pair[0], file);
    close(pair[1]);
    return 0;
}
