/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scrub: a list of files in order of their last verification, threads that hash them, and the one that called, which notes in the catalog
 * what they found whole, each second and at the end.
 *
 * The limit is plain: a thread that has read n bytes in all threads together waits until n / rate seconds have passed since the start.
 */
#include "store/scrub.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/io.h"
#include "store/segment-moved.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/stat.h>

#define PIECE (512u << 10)
#define MAX_THREADS 16
#define NOTE_US G_USEC_PER_SEC
#define WAIT_US (G_USEC_PER_SEC / 10)

typedef struct Item {
    Digest digest;
    Digest file; /* of a compressed blob as it is stored; none: not known yet */
    uint64_t size;
    int64_t verified;
    bool blob, whole;
} Item;

typedef struct Scrub {
    Store *store;
    Database *db;
    const ScrubOptions *options;
    DamageList *damage;
    Progress *progress;
    GArray *items;   /* of Item */
    ScrubReport report;
    int64_t since;   /* what was verified then or later is done */

    GMutex lock;
    GCond changed;
    guint next;      /* item to be taken */
    unsigned threads;
    GArray *found;   /* guint: items that are whole and not noted yet */
    GError *error;   /* the first; ends the work */
    int64_t start;
    uint64_t read;
} Scrub;

/* --- what is to be read --- */

static bool is_in_part(const ScrubOptions *options, const Digest *digest)
{
    uint64_t number;

    memcpy(&number, digest->bytes, sizeof(number));
    return options->parts == 0 || GUINT64_FROM_BE(number) % options->parts == options->part - 1;
}

static void take_row(Scrub *s, Query *query)
{
    Item item = {.size = (uint64_t)query_int(query, 1), .verified = query_int(query, 2), .blob = query_int(query, 3) != 0};

    query_digest(query, 0, &item.digest);
    query_digest(query, 4, &item.file);
    if (!is_in_part(s->options, &item.digest))
        return;
    if (s->since && item.verified >= s->since) {
        s->report.earlier_files++;
        s->report.earlier_bytes += item.size;
    } else {
        g_array_append_val(s->items, item);
    }
}

static bool list_items(Scrub *s, GError **error)
{
    g_autoptr(Query) query = database_query(s->db, error,
                                            "SELECT digest, size, verified, 0, NULL, number FROM segment WHERE dead = 0 UNION ALL"
                                            " SELECT digest, stored, verified, 1, file, 0 FROM blob WHERE dead = 0 ORDER BY 3, 4, 6, 1", "");
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0)
        take_row(s, query);
    return rc >= 0;
}

/* --- runs that were cut --- */

static bool get_meta(Scrub *s, const char *key, int64_t *ret, GError **error)
{
    return database_int(s->db, 0, ret, error, "SELECT value FROM meta WHERE key = ?1", "t", key);
}

static bool put_meta(Scrub *s, const char *key, int64_t value, GError **error)
{
    return database_run(s->db, error, "INSERT OR REPLACE INTO meta VALUES (?1,?2)", "ti", key, value);
}

static bool put_run(Scrub *s, int64_t begun, GError **error)
{
    if (!database_begin(s->db, false, error))
        return false;
    if (!put_meta(s, "scrub_begun", begun, error) || !put_meta(s, "scrub_part", s->options->part, error) ||
        !put_meta(s, "scrub_parts", s->options->parts, error)) {
        database_rollback(s->db);
        return false;
    }
    return database_commit(s->db, error);
}

static bool begin_run(Scrub *s, GError **error)
{
    int64_t part, parts;

    if (!s->report.noted)
        return true;
    if (!get_meta(s, "scrub_begun", &s->since, error) || !get_meta(s, "scrub_part", &part, error) || !get_meta(s, "scrub_parts", &parts, error))
        return false;
    if (s->since && part == s->options->part && parts == s->options->parts) {
        s->report.begun = s->since / G_USEC_PER_SEC;
        return true;
    }
    s->since = 0;
    return put_run(s, g_get_real_time(), error);
}

static bool end_run(Scrub *s, GError **error)
{
    int64_t oldest;

    if (s->report.noted && !put_run(s, 0, error))
        return false;
    if (!database_int(s->db, 0, &oldest, error,
                      "SELECT min(verified) FROM (SELECT verified FROM segment WHERE dead = 0 UNION ALL SELECT verified FROM blob WHERE dead = 0)", ""))
        return false;
    s->report.oldest = oldest / G_USEC_PER_SEC;
    return true;
}

static bool note_item(Scrub *s, const Item *item, int64_t now, GError **error)
{
    if (!item->blob)
        return database_run(s->db, error, "UPDATE segment SET verified = ?1 WHERE digest = ?2", "id", now, &item->digest);
    return database_run(s->db, error, "UPDATE blob SET verified = ?1, file = ?2 WHERE digest = ?3", "idd", now, &item->file, &item->digest);
}

static bool note_found(Scrub *s, const GArray *found, GError **error)
{
    int64_t now = g_get_real_time();

    if (!s->report.noted || found->len == 0)
        return true;
    if (!database_begin(s->db, false, error))
        return false;
    for (guint i = 0; i < found->len; i++)
        if (!note_item(s, &g_array_index(s->items, Item, g_array_index(found, guint, i)), now, error)) {
            database_rollback(s->db);
            return false;
        }
    return database_commit(s->db, error);
}

/* --- reading, in threads --- */

static bool pace(Scrub *s, uint64_t bytes, GError **error)
{
    int64_t due;

    progress_add(s->progress, bytes);
    g_mutex_lock(&s->lock);
    s->read += bytes;
    due = s->options->rate ? s->start + (int64_t)((double)s->read / (double)s->options->rate * G_USEC_PER_SEC) : 0;
    g_mutex_unlock(&s->lock);
    for (int64_t now = g_get_monotonic_time(); now < due; now = g_get_monotonic_time()) {
        if (!interrupt_check(error))
            return false;
        g_usleep((gulong)MIN(due - now, WAIT_US));
    }
    return interrupt_check(error);
}

/* *ret_why: why it cannot be read; then the digest says nothing. False only when it is to end. */
static bool hash_file(Scrub *s, int fd, uint8_t *buffer, Digest *ret, char **ret_why, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    struct stat st;
    uint64_t size = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;

    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    for (uint64_t at = 0; at < size;) {
        size_t part = (size_t)MIN(size - at, PIECE);

        if (!io_pread_full(fd, buffer, part, at)) {
            *ret_why = g_strdup_printf("it cannot be read: %s", g_strerror(errno));
            return true;
        }
        digest_stream_update(stream, buffer, part);
        at += part;
        if (!pace(s, part, error))
            return false;
    }
    digest_stream_final(stream, ret);
    return true;
}

static void say_damaged(Scrub *s, const Item *item, const char *why)
{
    damage_add(s->damage, item->blob ? DAMAGE_BLOB : DAMAGE_SEGMENT, &item->digest, false, why);
}

/* A segment that gc has repacked meanwhile has a table in its place. */
static void say_missing(Scrub *s, const Item *item, int saved)
{
    g_autofree char *why = g_strdup_printf("it cannot be opened: %s", g_strerror(saved));
    g_autoptr(SegmentMoved) moved = NULL;

    if (saved != ENOENT)
        say_damaged(s, item, why);
    else if (item->blob || (segment_moved_load(s->store, &item->digest, &moved, NULL) && !moved))
        damage_add(s->damage, item->blob ? DAMAGE_BLOB : DAMAGE_SEGMENT, &item->digest, true, NULL);
}

static bool read_segment(Scrub *s, Item *item, uint8_t *buffer, GError **error)
{
    auto_fd int fd = segment_open_file(s->store, &item->digest);
    g_autofree char *why = NULL;
    Digest have = digest_none;

    if (fd < 0) {
        say_missing(s, item, errno);
        return true;
    }
    if (!hash_file(s, fd, buffer, &have, &why, error))
        return false;
    item->whole = !why && digest_equal(&have, &item->digest);
    if (!item->whole)
        say_damaged(s, item, why ? why : "its bytes do not have the hash that its name says");
    return true;
}

/* Of a compressed blob whose stored bytes have the hash @have. */
static void judge_packed(Scrub *s, Item *item, const Digest *have)
{
    uint64_t size, stored;
    bool whole;

    if (digest_equal(have, &item->file)) {
        item->whole = true;
        return;
    }
    whole = blob_file_verify(s->store, &item->digest, &size, &stored, NULL);
    if (!whole)
        say_damaged(s, item, "its content does not have the hash that its name says");
    else if (!digest_is_none(&item->file))
        say_damaged(s, item, "its bytes have changed since they were last verified, though its content is whole");
    item->whole = whole && digest_is_none(&item->file);
    item->file = *have;
}

static bool read_blob(Scrub *s, Item *item, uint8_t *buffer, GError **error)
{
    bool packed;
    auto_fd int fd = blob_file_open(s->store, &item->digest, &packed);
    g_autofree char *why = NULL;
    Digest have = digest_none;

    if (fd < 0) {
        say_missing(s, item, errno);
        return true;
    }
    if (!hash_file(s, fd, buffer, &have, &why, error))
        return false;
    if (why) {
        say_damaged(s, item, why);
    } else if (packed) {
        judge_packed(s, item, &have);
    } else {
        item->whole = digest_equal(&have, &item->digest);
        item->file = have;
        if (!item->whole)
            say_damaged(s, item, "its bytes do not have the hash that its name says");
    }
    return true;
}

static void finished(Scrub *s, guint index, bool ok, GError *error)
{
    const Item *item = &g_array_index(s->items, Item, index);

    AUTO_LOCK(&s->lock);
    if (ok && item->whole)
        g_array_append_val(s->found, index);
    s->report.files += ok;
    if (!ok && !s->error)
        s->error = error;
    else
        g_clear_error(&error);
}

/* UINT_MAX: there is nothing left to do, or no use in it. */
static guint take_next(Scrub *s)
{
    AUTO_LOCK(&s->lock);
    return s->error || s->next >= s->items->len ? UINT_MAX : s->next++;
}

static gpointer work(gpointer arg)
{
    g_autofree uint8_t *buffer = g_malloc(PIECE);
    Scrub *s = arg;
    guint index;

    while ((index = take_next(s)) != UINT_MAX) {
        Item *item = &g_array_index(s->items, Item, index);
        GError *error = NULL;
        bool ok = item->blob ? read_blob(s, item, buffer, &error) : read_segment(s, item, buffer, &error);

        finished(s, index, ok, error);
    }
    g_mutex_lock(&s->lock);
    s->threads--;
    g_cond_signal(&s->changed);
    g_mutex_unlock(&s->lock);
    return NULL;
}

/* --- together --- */

/* What was found since the last time; false in *ret_more when the threads have ended. */
static GArray *wait_for_found(Scrub *s, bool *ret_more)
{
    GArray *found;
    int64_t end = g_get_monotonic_time() + NOTE_US;

    AUTO_LOCK(&s->lock);
    while (s->threads > 0 && g_cond_wait_until(&s->changed, &s->lock, end))
        ;
    found = s->found;
    s->found = g_array_new(FALSE, FALSE, sizeof(guint));
    *ret_more = s->threads > 0;
    return found;
}

static bool note_until_done(Scrub *s, GError **error)
{
    bool more = true, ok = true;

    while (more) {
        g_autoptr(GArray) found = wait_for_found(s, &more);

        if (ok && !note_found(s, found, error)) {
            ok = false;
            g_mutex_lock(&s->lock);
            s->next = s->items->len; /* the threads end with what they have in hand */
            g_mutex_unlock(&s->lock);
        }
    }
    return ok;
}

static bool run_threads(Scrub *s, GError **error)
{
    GThread *threads[MAX_THREADS];
    unsigned count = MIN(MIN(g_get_num_processors(), MAX_THREADS), s->items->len);
    bool ok;

    s->threads = count;
    s->start = g_get_monotonic_time();
    for (unsigned i = 0; i < count; i++)
        threads[i] = g_thread_new("scrub", work, s);
    ok = note_until_done(s, error);
    for (unsigned i = 0; i < count; i++)
        (void)g_thread_join(threads[i]);
    s->report.bytes = s->read;
    if (ok && s->error) {
        g_propagate_error(error, g_steal_pointer(&s->error));
        return fail_prefix(error, "%" G_GUINT64_FORMAT " of %u files were read%s", s->report.files, s->items->len,
                           s->report.noted ? ", the next run goes on behind them" : "");
    }
    g_clear_error(&s->error);
    return ok;
}

static bool read_items(Scrub *s, GError **error)
{
    uint64_t total = 0;
    bool ok;

    for (guint i = 0; i < s->items->len; i++)
        total += g_array_index(s->items, Item, i).size;
    s->progress = s->options->progress ? progress_new("verify", total, true) : NULL;
    ok = run_threads(s, error);
    if (ok)
        progress_done(s->progress);
    progress_free(s->progress);
    return ok;
}

bool store_scrub(Store *store, const ScrubOptions *options, DamageList *damage, ScrubReport *ret, GError **error)
{
    Scrub s = {.store = store, .options = options, .damage = damage};
    bool ok;

    if (!store_catalog(store, &s.db, error))
        return false;
    s.report.noted = !(store->flags & STORE_OPEN_READONLY);
    s.items = g_array_new(FALSE, TRUE, sizeof(Item));
    s.found = g_array_new(FALSE, FALSE, sizeof(guint));
    g_mutex_init(&s.lock);
    g_cond_init(&s.changed);
    ok = begin_run(&s, error) && list_items(&s, error) && read_items(&s, error) && end_run(&s, error);
    g_mutex_clear(&s.lock);
    g_cond_clear(&s.changed);
    g_array_unref(s.items);
    g_array_unref(s.found);
    if (ok)
        *ret = s.report;
    return ok;
}
