/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln's end of the conversation with its confined reader of ext4 (store/ext4-wire.h): starts the program, gives it the bytes that it asks
 * for, and hands out what it says. Whatever becomes of the reader is one sentence that names the file system.
 *
 *     ext4_session_open(map, offset, size, false, &s, &info, error);
 *     ext4_session_each(s, EXT4_WALK, NULL, take_word, arg, error);
 *
 * One thread only, the one that opened it: the program ends with it.
 */
#ifndef KILN_STORE_EXT4_SESSION_H
#define KILN_STORE_EXT4_SESSION_H

#include "store/ext4-wire.h"
#include "store/map.h"

typedef struct Ext4Session Ext4Session;

/* One word of the reader's. The bytes are the session's until the next word. */
typedef struct Ext4Said {
    enum Ext4Word word;
    const uint8_t *data;
    size_t size;
} Ext4Said;

/* @map is borrowed. @unsettled: though a journal waits; what is read may be older than what the journal holds. */
bool ext4_session_open(StoreMap *map, uint64_t offset, uint64_t size, bool unsettled, Ext4Session **ret, Ext4Info *ret_info, GError **error);
void ext4_session_close(Ext4Session *session);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Ext4Session, ext4_session_close)

typedef bool Ext4SaidFn(Ext4Session *session, Ext4Said *said, void *arg, GError **error);

/*
 * Asks, and hands each word of the answer to @fn, which may not ask anything; the first false ends it. False also for what the reader could
 * not do, in its words.
 */
bool ext4_session_each(Ext4Session *session, enum Ext4Op op, const char *path, Ext4SaidFn *fn, void *arg, GError **error);
/* Copies a fixed part off the front of @said; false, with an error, when it is shorter. */
bool ext4_session_take(Ext4Session *session, Ext4Said *said, void *to, size_t size, GError **error);
/* "... was answered with nonsense". */
bool ext4_session_nonsense(Ext4Session *session, GError **error);

/* For fuzzers, which want to see the reader's own crashes: it runs in this process when @serve is set (ext4_serve). */
void ext4_session_serve_here(void (*serve)(int in, int out));
/* For tests: how long the reader may say nothing, in ms. */
void ext4_session_set_patience(int ms);

#endif
