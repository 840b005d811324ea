/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kiln on the host and its runner in the guest say to each other, and the bytes they say it in.
 *
 *     0        4        8    10   12
 *     +--------+--------+----+----+----------------+
 *     | length | request|type| 0  | payload        |     all numbers little-endian
 *     +--------+--------+----+----+----------------+     length: of the payload, at most WIRE_PAYLOAD_MAX
 *
 * A string is a 32-bit length and that many bytes, none of them NUL.
 *
 * The host asks, one request at a time; the runner answers with frames that carry the request's number. The last one is OK,
 * ERR or EXIT; OUTPUT and DATA may come before it. HELLO is the runner's first frame and BYE its last; both have
 * request 0. Nothing else is ever sent unasked, so whatever arrives out of turn comes from a hostile guest.
 *
 *     request  payload                                              answer
 *     BEGIN    u8 flags, i64 seconds, u32 nanoseconds, u32 ms       OK        BEGIN_*; clock to set; limit of the step, 0 for none
 *     EXEC     u32 n, n strings (argv), u32 n, n strings (env), cwd OUTPUT* EXIT(u32 code, u8 timed out) | ERR
 *     PUT      path, meta; then DATA*, an empty DATA ends it         OK(u64 size) | ERR
 *     GET      path, u64 most bytes (0: no limit)                   DATA*, OK(u64 size) | ERR
 *     STAT     path                                                 OK(u8 type, meta) | ERR
 *     MKDIR    path, meta                                           OK | ERR
 *     SYMLINK  target, path                                         OK | ERR
 *     REMOVE   path                                                 OK | ERR
 *     LIST     path                                                 DATA* (names, each with a final NUL), OK | ERR
 *     GROW                                                          OK(u64 1: it grew) | ERR
 *     END                                                           OK | ERR
 *     FREEZE   u8 trim                                              OK | ERR
 *     THAW                                                          OK | ERR
 *     WALK     u8 contents                                          { ENTRY XATTR* PIECE* }*, OK(u64 entries) | ERR     between steps only
 *     QUIT                                                          OK, then BYE when nothing of the runner holds the guest
 *     SHELL    u8 terminal, u16 rows, u16 columns, u32 n, n strings OUTPUT* EXIT | ERR; meanwhile the host sends DATA* (what is typed)
 *              (env)                                                and WINDOW* (u16 rows, u16 columns); an empty DATA ends them,
 *                                                                   and comes also when the shell has ended first
 *
 * ENTRY is path ("" the root's, parents first), u8 1 for a further name of an inode that was told (then no more is said of it), u32 mode with the
 * type, u32 uid, u32 gid, i64 mtime, u32 its ns, u64 device, u64 inode, u32 major, u32 minor, u64 size, target. XATTR is name, then
 * the value. PIECE is u64 offset, then bytes; offsets ascend, and what lies between pieces is zero.
 *
 * meta is u32 uid, u32 gid, u32 mode, i64 mtime. ERR is u32 errno and a sentence; OUTPUT is u8 stream (1 or 2) and bytes.
 * The helpers below are used by both sides, so that they can't disagree.
 */
#ifndef KILN_RUNNER_PROTOCOL_H
#define KILN_RUNNER_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WIRE_MAGIC 0x4e4c494bu /* "KILN" */
#define WIRE_VERSION 3u
#define WIRE_HEADER_SIZE 12
#define WIRE_PAYLOAD_MAX (256u * 1024)
#define WIRE_CHUNK (64u * 1024) /* of files and output */
#define WIRE_PATH_MAX 4096u
#define WIRE_LIST_MAX (32u << 20) /* bytes of names in one folder */

enum WireType {
    WIRE_HELLO = 1, /* u32 magic, u32 version */
    WIRE_BEGIN,
    WIRE_EXEC,
    WIRE_PUT,
    WIRE_GET,
    WIRE_STAT,
    WIRE_MKDIR,
    WIRE_SYMLINK,
    WIRE_REMOVE,
    WIRE_LIST,
    WIRE_END,
    WIRE_FREEZE,
    WIRE_THAW,
    WIRE_QUIT,
    WIRE_SHELL,
    WIRE_WINDOW,
    WIRE_WALK,
    WIRE_GROW,
    WIRE_OK = 32,
    WIRE_ERR,
    WIRE_EXIT,
    WIRE_OUTPUT,
    WIRE_DATA,
    WIRE_BYE, /* u32 wait status of the session */
    WIRE_ENTRY,
    WIRE_XATTR,
    WIRE_PIECE,
};

/* Of BEGIN: */
#define BEGIN_NETWORK 1u
#define BEGIN_BOOTED 2u /* the step's programs expect a machine that has booted */

typedef struct WireHeader {
    uint32_t length, request;
    uint16_t type;
} WireHeader;

typedef struct WireMeta {
    uint32_t uid, gid, mode;
    int64_t mtime;
} WireMeta;

/* Writes into a caller's buffer; @bad tells at the end whether everything fitted. */
typedef struct WireWriter {
    uint8_t *data;
    size_t size, capacity;
    bool bad;
} WireWriter;

/* Reads a payload; after the first thing that is not there everything reads as zero and @bad is set. */
typedef struct WireReader {
    const uint8_t *data;
    size_t size, at;
    bool bad;
} WireReader;

static inline void wire_put_bytes(WireWriter *w, const void *bytes, size_t size)
{
    if (w->bad || size > w->capacity - w->size) {
        w->bad = true;
        return;
    }
    if (size)
        memcpy(w->data + w->size, bytes, size);
    w->size += size;
}

static inline void wire_put_number(WireWriter *w, uint64_t value, int bytes)
{
    uint8_t le[8];

    for (int i = 0; i < bytes; i++)
        le[i] = (uint8_t)(value >> (8 * i));
    wire_put_bytes(w, le, (size_t)bytes);
}

static inline void wire_put_string(WireWriter *w, const char *text)
{
    size_t length = strlen(text);

    if (length > WIRE_PAYLOAD_MAX)
        w->bad = true;
    wire_put_number(w, length, 4);
    wire_put_bytes(w, text, length);
}

static inline void wire_put_meta(WireWriter *w, const WireMeta *meta)
{
    wire_put_number(w, meta->uid, 4);
    wire_put_number(w, meta->gid, 4);
    wire_put_number(w, meta->mode, 4);
    wire_put_number(w, (uint64_t)meta->mtime, 8);
}

static inline uint64_t wire_get_number(WireReader *r, int bytes)
{
    uint64_t value = 0;

    if (r->bad || r->size - r->at < (size_t)bytes) {
        r->bad = true;
        return 0;
    }
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)r->data[r->at + (size_t)i] << (8 * i);
    r->at += (size_t)bytes;
    return value;
}

/* The bytes stay in the payload; NULL when there is no such string. *ret_length never counts a NUL. */
static inline const char *wire_get_string(WireReader *r, size_t *ret_length)
{
    size_t length = (size_t)wire_get_number(r, 4);
    const char *text = (const char *)r->data + r->at;

    *ret_length = 0;
    if (r->bad || length > r->size - r->at || memchr(text, '\0', length)) {
        r->bad = true;
        return NULL;
    }
    r->at += length;
    *ret_length = length;
    return text;
}

static inline WireMeta wire_get_meta(WireReader *r)
{
    WireMeta meta;

    meta.uid = (uint32_t)wire_get_number(r, 4);
    meta.gid = (uint32_t)wire_get_number(r, 4);
    meta.mode = (uint32_t)wire_get_number(r, 4);
    meta.mtime = (int64_t)wire_get_number(r, 8);
    return meta;
}

static inline void wire_pack_header(uint8_t out[WIRE_HEADER_SIZE], uint32_t length, uint32_t request,
                                    uint16_t type)
{
    WireWriter w = {out, 0, WIRE_HEADER_SIZE, false};

    wire_put_number(&w, length, 4);
    wire_put_number(&w, request, 4);
    wire_put_number(&w, type, 2);
    wire_put_number(&w, 0, 2);
}

/* False when the bytes cannot be a frame of ours. */
static inline bool wire_unpack_header(const uint8_t in[WIRE_HEADER_SIZE], WireHeader *ret)
{
    WireReader r = {in, WIRE_HEADER_SIZE, 0, false};

    ret->length = (uint32_t)wire_get_number(&r, 4);
    ret->request = (uint32_t)wire_get_number(&r, 4);
    ret->type = (uint16_t)wire_get_number(&r, 2);
    return wire_get_number(&r, 2) == 0 && ret->length <= WIRE_PAYLOAD_MAX;
}

#endif
