/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chain of the ledger: writing it, its head, finding it again. What it is for is said in the header.
 *
 * Who writes holds an flock on STORE/ledger/ and this process's lease, so that gc leaves a blob alone until the head names it. The head is
 * believed only where it fits: blobs that it names and that are gone, or a head that cannot be read, mean that more is
 * written than needed. A head that goes further than state.db is an error: state.db was replaced by an older copy, and what it lost is
 * in the ledger still.
 *
 *   head   {"chain": [{"at", "blob", "bytes", "rows", "sequence", "through"}, ...]}      oldest first
 *   blob   {"at", "complete", "gone", "kiln": "state ledger 1", "previous", "rows", "sequence", "through"}
 */
#include "store/ledger.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/scope.h"
#include "store/blob.h"
#include "store/io.h"
#include "store/recovery.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/file.h>

#define FOLDER "ledger"
#define HEAD_NAME "head"
#define HEAD_NEW "head.new"
#define HEAD_MAX (1u << 20)
#define CHAIN_MAX 65536
#define MERGE_BYTES (4u << 20) /* larger blobs stay as they are */
#define SOMETIMES_US (60 * G_USEC_PER_SEC)
#define LEDGER_KIND "state ledger 1"

typedef struct Link {
    Digest blob;
    int64_t sequence, at, rows, bytes;
    LedgerThrough through;
} Link;

/* --- the head --- */

static bool parse_link(const json_t *json, Link *ret)
{
    const char *blob;
    json_int_t sequence, at, rows, bytes;
    const json_t *through;

    if (json_unpack((json_t *)json, "{s:s, s:I, s:I, s:I, s:I, s:o}", "blob", &blob, "sequence", &sequence, "at", &at, "rows", &rows, "bytes",
                    &bytes, "through", &through) < 0)
        return false;
    *ret = (Link){.sequence = sequence, .at = at, .rows = rows, .bytes = bytes};
    return rows >= 0 && digest_parse(blob, &ret->blob) && ledger_through_parse(through, &ret->through);
}

/* Up to the first link that is not there: what comes after it says too little. */
static GArray *load_chain(Store *store)
{
    GArray *chain = g_array_new(FALSE, FALSE, sizeof(Link));
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) head = NULL;
    json_t *one;
    Link link;
    size_t i;

    if (!file_load(store->dirfd, FOLDER "/" HEAD_NAME, HEAD_MAX, &bytes, NULL) ||
        !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), HEAD_MAX, "the ledger's head", &head, NULL))
        return chain;
    json_array_foreach(json_object_get(head, "chain"), i, one) {
        if (!parse_link(one, &link) || !blob_file_exists(store, &link.blob))
            break;
        g_array_append_val(chain, link);
    }
    return chain;
}

static json_t *link_json(const Link *link)
{
    char oci[DIGEST_OCI_SIZE];

    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:o}", "blob", digest_to_oci(&link->blob, oci), "sequence", (json_int_t)link->sequence, "at",
                     (json_int_t)link->at, "rows", (json_int_t)link->rows, "bytes", (json_int_t)link->bytes, "through",
                     ledger_through_json(&link->through));
}

static bool write_head(Store *store, int folder, const GArray *chain, bool durable, GError **error)
{
    g_autoptr(json_t) list = json_array(), head = json_pack("{s:O}", "chain", list);
    g_autofree char *text = NULL;
    auto_fd int fd = -1;

    for (guint i = 0; i < chain->len; i++)
        json_array_append_new(list, link_json(&g_array_index(chain, Link, i)));
    text = json_canonical(head);
    (void)io_unlink(folder, HEAD_NEW, 0); /* somebody's who was killed */
    fd = io_open(folder, HEAD_NEW, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (fd < 0 || !io_pwrite_full(fd, text, strlen(text), 0) || (durable && io_fdatasync(fd) < 0) ||
        io_rename(folder, HEAD_NEW, folder, HEAD_NAME) < 0 || (durable && io_fsync(folder) < 0))
        return store_fail_errno(store, error, "write the ledger's head in");
    return true;
}

static bool lock_folder(Store *store, int *ret, GError **error)
{
    auto_fd int fd = -1;
    int rc;

    if (io_mkdir(store->dirfd, FOLDER, 0755) < 0 && errno != EEXIST)
        return store_fail_errno(store, error, "make the folder '" FOLDER "' of");
    fd = io_open(store->dirfd, FOLDER, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return store_fail_errno(store, error, "open the ledger of");
    while ((rc = flock(fd, LOCK_EX)) < 0 && errno == EINTR)
        ;
    if (rc < 0)
        return store_fail_errno(store, error, "lock the ledger of");
    *ret = g_steal_fd(&fd);
    return true;
}

bool store_ledger_forget_head(Store *store, GError **error)
{
    auto_fd int folder = -1;

    return lock_folder(store, &folder, error) &&
           (io_unlink(folder, HEAD_NAME, 0) == 0 || errno == ENOENT || store_fail_errno(store, error, "forget the ledger's head in"));
}

/* --- writing --- */

static const LedgerThrough *end_of(const GArray *chain)
{
    static const LedgerThrough nothing;

    return chain->len ? &g_array_index(chain, Link, chain->len - 1).through : &nothing;
}

static int64_t rows_between(const LedgerThrough *from, const LedgerThrough *to)
{
    return to->channel_log - from->channel_log + to->journal - from->journal + to->signature - from->signature + to->change - from->change;
}

/* A store in which nothing was done yet has an identity, and nothing to lose. */
static bool is_followed(const GArray *chain, const LedgerThrough *newest)
{
    int64_t rows = rows_between(end_of(chain), newest); /* below zero: state.db is older */

    return rows == 0 || (chain->len == 0 && rows == 1);
}

static int64_t count_rows(const json_t *document)
{
    int64_t rows = 0;
    const char *name;
    json_t *list;

    json_object_foreach(json_object_get(document, "rows"), name, list)
        rows += (int64_t)json_array_size(list);
    json_object_foreach(json_object_get(document, "gone"), name, list)
        rows += (int64_t)json_array_size(list);
    return rows;
}

/* Takes off the end what is written again together with @fresh rows. */
static void fold(GArray *chain, int64_t fresh)
{
    while (chain->len > 0) {
        const Link *last = &g_array_index(chain, Link, chain->len - 1);

        if (last->rows > 2 * fresh || last->bytes > MERGE_BYTES)
            return;
        fresh += last->rows;
        g_array_set_size(chain, chain->len - 1);
    }
}

static bool collect_piece(Store *store, const LedgerThrough *since, json_t **ret, LedgerThrough *ret_through, GError **error)
{
    Database *state;
    bool ok;

    if (!store_state_db(store, &state, error) || !database_read(state, error))
        return false;
    ok = ledger_collect(state, since, ret, ret_through, error);
    database_rollback(state);
    return ok;
}

/* @newest: the time that no link may repeat, since it decides which of two chains is the newer one. */
static bool write_piece(Store *store, GArray *chain, int64_t *sequence, int64_t *newest, bool *ret_complete, GError **error)
{
    const Link *last = chain->len ? &g_array_index(chain, Link, chain->len - 1) : NULL;
    g_autoptr(json_t) document = NULL;
    g_autofree char *text = NULL;
    char oci[DIGEST_OCI_SIZE];
    Link link = {.sequence = ++*sequence};

    if (!collect_piece(store, end_of(chain), &document, &link.through, error))
        return false;
    link.at = *newest = MAX(g_get_real_time(), *newest + 1);
    link.rows = count_rows(document);
    json_object_set_new(document, "kiln", json_string(LEDGER_KIND));
    json_object_set_new(document, "sequence", json_integer(link.sequence));
    json_object_set_new(document, "at", json_integer(link.at));
    json_object_set_new(document, "previous", last ? json_string(digest_to_oci(&last->blob, oci)) : json_null());
    json_object_set_new(document, "through", ledger_through_json(&link.through));
    text = json_canonical(document);
    link.bytes = (int64_t)strlen(text);
    if (!store_blob_put(store, text, strlen(text), &link.blob, error))
        return false;
    *ret_complete = json_is_true(json_object_get(document, "complete"));
    g_array_append_val(chain, link);
    return true;
}

static bool write_pieces(Store *store, int folder, GArray *chain, int64_t fresh, bool durable, GError **error)
{
    int64_t sequence = 0, newest = 0;
    bool complete = false;

    for (guint i = 0; i < chain->len; i++) {
        sequence = MAX(sequence, g_array_index(chain, Link, i).sequence);
        newest = MAX(newest, g_array_index(chain, Link, i).at);
    }
    fold(chain, fresh);
    while (!complete)
        if (!write_piece(store, chain, &sequence, &newest, &complete, error))
            return false;
    trace("store.ledger", "%u blobs, sequence %" G_GINT64_FORMAT, chain->len, sequence);
    return write_head(store, folder, chain, durable, error);
}

static bool follow_sets(Store *store, Database *state, GError **error)
{
    Database *catalog;
    bool behind;

    if (!store_catalog(store, &catalog, error) || !published_is_behind(catalog, state, &behind, error))
        return false;
    if (!behind)
        return true;
    if (!database_begin(state, true, error))
        return false;
    if (!published_follow(catalog, state, error)) {
        database_rollback(state);
        return false;
    }
    return database_commit(state, error);
}

static bool fail_ahead(Store *store, GError **error)
{
    return fail(error,
                "state.db of store '%s' lacks entries that its ledger has: it was replaced by an older copy. "
                "Move state.db away and run kiln fsck --rebuild, or delete '" FOLDER "/" HEAD_NAME "' to go on with what is there",
                store->path);
}

bool store_ledger_write(Store *store, bool durable, GError **error)
{
    g_autoptr(GArray) chain = NULL;
    LedgerThrough newest;
    auto_fd int folder = -1;
    Database *state;
    bool has = false;

    if (!store_writable(store, error) || !store_state_db(store, &state, error) || !follow_sets(store, state, error) ||
        !store_hold_lease(store, error) || !lock_folder(store, &folder, error))
        return false;
    chain = load_chain(store);
    store->ledger_at = g_get_monotonic_time();
    if (!ledger_newest(state, &newest, error))
        return false;
    if (is_followed(chain, &newest))
        return !durable || write_head(store, folder, chain, true, error);
    if (!ledger_has(state, end_of(chain), &has, error))
        return false;
    if (!has)
        return fail_ahead(store, error);
    return write_pieces(store, folder, chain, rows_between(end_of(chain), &newest), durable, error);
}

/* Cheap when there is nothing to do, which is how most processes find it. */
static bool is_behind(Store *store)
{
    g_autoptr(GArray) chain = load_chain(store);
    Database *state, *catalog;
    LedgerThrough newest;
    bool sets = false;

    return !store_state_db(store, &state, NULL) || !store_catalog(store, &catalog, NULL) || !published_is_behind(catalog, state, &sets, NULL) || sets ||
           !ledger_newest(state, &newest, NULL) || !is_followed(chain, &newest);
}

bool store_ledger_follow(Store *store)
{
    g_autoptr(GError) why = NULL;

    if (is_behind(store) && !store_ledger_write(store, false, &why))
        log_warning("what is in state.db could not be written to the ledger yet: %s", why->message);
    return true;
}

bool store_ledger_follow_sometimes(Store *store)
{
    return g_get_monotonic_time() - store->ledger_at < SOMETIMES_US || store_ledger_follow(store);
}

/* --- gc --- */

bool store_ledger_mark(Store *store, Database *catalog, GError **error)
{
    g_autoptr(GArray) chain = load_chain(store);

    for (guint i = 0; i < chain->len; i++)
        if (!database_run(catalog, error, "INSERT OR IGNORE INTO live VALUES (?1)", "d", &g_array_index(chain, Link, i).blob))
            return false;
    return true;
}

/* --- reading --- */

static bool load_document(Store *store, const Digest *blob, json_t **ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) document = NULL;

    if (!store_blob_get(store, blob, LEDGER_BLOB_MAX, &bytes, error) ||
        !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), LEDGER_BLOB_MAX, "a blob of the ledger", &document, error))
        return false;
    if (g_strcmp0(json_string_value(json_object_get(document, "kiln")), LEDGER_KIND) != 0)
        return fail(error, "a blob of the ledger is of another kind");
    *ret = g_steal_pointer(&document);
    return true;
}

bool store_ledger_verify(Store *store, GPtrArray *problems, GError **error)
{
    g_autoptr(GArray) chain = load_chain(store);
    Digest previous = digest_none, said;
    Database *state;
    bool has;

    for (guint i = 0; i < chain->len; i++) {
        const Link *link = &g_array_index(chain, Link, i);
        g_autoptr(json_t) document = NULL;
        g_autoptr(GError) why = NULL;
        const char *text;

        if (!load_document(store, &link->blob, &document, &why)) {
            g_ptr_array_add(problems, g_strdup_printf("the ledger: %s", why->message));
            continue;
        }
        text = json_string_value(json_object_get(document, "previous"));
        said = digest_none;
        if ((text && !digest_parse(text, &said)) || !digest_equal(&said, &previous))
            g_ptr_array_add(problems, g_strdup_printf("blob %" G_GINT64_FORMAT " of the ledger does not follow the one before it", link->sequence));
        previous = link->blob;
    }
    if (!store_state_db(store, &state, error) || !ledger_has(state, end_of(chain), &has, error))
        return false;
    if (!has)
        g_ptr_array_add(problems, g_strdup("state.db lacks entries that the ledger has: it was replaced by an older copy"));
    return true;
}

/* What the head should say of a blob. False: the blob cannot be read, which is told elsewhere. */
static bool link_of_blob(Store *store, const Digest *blob, Link *ret)
{
    g_autoptr(json_t) document = NULL;
    uint64_t bytes;

    if (!load_document(store, blob, &document, NULL) || !store_blob_size(store, blob, &bytes, NULL))
        return false;
    *ret = (Link){.blob = *blob,
                  .sequence = json_integer_value(json_object_get(document, "sequence")),
                  .at = json_integer_value(json_object_get(document, "at")),
                  .rows = count_rows(document),
                  .bytes = (int64_t)bytes};
    return ledger_through_parse(json_object_get(document, "through"), &ret->through);
}

/* Links as their blobs want them; false: the head is torn. *ret_wrong: it says something else of one. */
static bool compare_head(Store *store, const char *text, const json_t *head, GArray *chain, bool *ret_wrong)
{
    g_autofree char *canonical = json_canonical(head);
    json_t *one;
    size_t i;

    if (strcmp(canonical, text) != 0)
        return false;
    json_array_foreach(json_object_get(head, "chain"), i, one) {
        char oci[DIGEST_OCI_SIZE];
        Link said, is;

        if (!parse_link(one, &said) || strcmp(digest_to_oci(&said.blob, oci), json_string_value(json_object_get(one, "blob"))) != 0 || !blob_file_exists(store, &said.blob))
            return false;
        if (!link_of_blob(store, &said.blob, &is))
            is = said;
        *ret_wrong |= said.sequence != is.sequence || said.at != is.at || said.rows != is.rows || said.bytes != is.bytes ||
                      memcmp(&said.through, &is.through, sizeof(is.through)) != 0;
        g_array_append_val(chain, is);
    }
    return json_object_size(head) == 1 && json_is_array(json_object_get(head, "chain"));
}

static bool mend_head(Store *store, const GArray *chain, GError **error)
{
    auto_fd int folder = -1;

    return lock_folder(store, &folder, error) && write_head(store, folder, chain, true, error);
}

bool store_ledger_check_head(Store *store, bool mend, GPtrArray *problems, GPtrArray *repairs, GError **error)
{
    g_autoptr(GArray) chain = g_array_new(FALSE, FALSE, sizeof(Link));
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(json_t) head = NULL;
    bool wrong = false, torn;

    if (!file_load(store->dirfd, FOLDER "/" HEAD_NAME, HEAD_MAX, &bytes, NULL))
        return true;
    torn = !json_parse(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), HEAD_MAX, "the ledger's head", &head, NULL) ||
           !compare_head(store, g_bytes_get_data(bytes, NULL), head, chain, &wrong);
    if (torn && (store->flags & STORE_OPEN_READONLY))
        g_ptr_array_add(problems, g_strdup(FOLDER "/" HEAD_NAME " cannot be read, which is no loss: it is written anew when the store is written to"));
    else if (torn)
        g_ptr_array_add(repairs, g_strdup(FOLDER "/" HEAD_NAME " could not be read and is written anew, out of state.db"));
    else if (wrong && mend)
        g_ptr_array_add(repairs, g_strdup(FOLDER "/" HEAD_NAME " did not fit its blobs and was written anew, out of them"));
    else if (wrong)
        g_ptr_array_add(problems, g_strdup(FOLDER "/" HEAD_NAME " is damaged: it says other things of its blobs than they do; kiln fsck --repair writes it anew"));
    return torn || !wrong || !mend || mend_head(store, chain, error);
}

/* --- finding it without a head --- */

typedef struct Found {
    Digest blob, previous;
    int64_t at;
    bool complete;
} Found;

/* Larger files are not looked into. */
static bool may_be_ledger(Store *store, const Digest *digest)
{
    uint64_t size;

    return store_blob_size(store, digest, &size, NULL) && size < LEDGER_BLOB_MAX;
}

static bool find_blob(Store *store, int dirfd, const char *fan, const char *name, void *arg, GError **error)
{
    GHashTable *found = arg;
    g_autoptr(json_t) document = NULL;
    const char *previous;
    Found *one;
    Digest digest;
    bool packed;

    if (!store_parse_file_name(fan, name, &digest, &packed) || !may_be_ledger(store, &digest) || !load_document(store, &digest, &document, NULL))
        return true;
    one = g_new0(Found, 1);
    one->blob = digest;
    one->at = json_integer_value(json_object_get(document, "at"));
    one->complete = json_is_true(json_object_get(document, "complete"));
    previous = json_string_value(json_object_get(document, "previous"));
    if (previous && !digest_parse(previous, &one->previous))
        g_free(one);
    else
        g_hash_table_insert(found, &one->blob, one);
    return true;
}

static const Found *newest_before(GHashTable *found, int64_t before)
{
    const Found *newest = NULL, *one;
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, found);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        one = value;
        if (one->complete && one->at < before && (!newest || one->at > newest->at))
            newest = one;
    }
    return newest;
}

/* From the end back to the first; false when a link is missing. No chain can be longer than there are blobs. */
static bool walk(Store *store, GHashTable *found, const Found *end, GPtrArray *documents)
{
    const Found *one = end;

    while (one && documents->len < MIN(CHAIN_MAX, g_hash_table_size(found))) {
        json_t *document;

        if (!load_document(store, &one->blob, &document, NULL))
            return false;
        g_ptr_array_insert(documents, 0, document);
        if (digest_is_none(&one->previous))
            return true;
        one = g_hash_table_lookup(found, &one->previous);
    }
    return false;
}

bool store_ledger_find(Store *store, GPtrArray **ret, GError **error)
{
    g_autoptr(GHashTable) found = g_hash_table_new_full(digest_hash, digest_equal_gfunc, NULL, g_free);
    g_autoptr(GPtrArray) documents = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    const Found *end;

    if (!store_each_file(store, store->blobs_fd, find_blob, found, error))
        return false;
    end = newest_before(found, G_MAXINT64);
    while (end && !walk(store, found, end, documents)) {
        g_ptr_array_set_size(documents, 0);
        end = newest_before(found, end->at);
    }
    *ret = g_steal_pointer(&documents);
    return true;
}
