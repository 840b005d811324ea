/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signatures as rows of state.db, over canonical JSON that says what kind of thing was signed: no signature of one kind can pass for
 * another's.
 */
#include "store/signature.h"

#include "base/error.h"
#include "store/ledger.h"
#include "store/store-private.h"

#define IMAGE_LOG "image"
#define CHANNEL_LOG "channels"
#define GROUP_PREFIX "group/"
#define TEXT_MAX 256
#define SIGNATURE_COLUMNS "number, at, log, entry, digest, key, signature, who"

void store_signature_free(StoreSignature *signature)
{
    if (!signature)
        return;
    g_free(signature->log);
    g_free(signature->signature);
    g_free(signature->who);
    g_free(signature);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(StoreSignature, store_signature_free)

static char *signed_text(const StoreSignature *s)
{
    bool image = strcmp(s->log, IMAGE_LOG) == 0;
    char oci[DIGEST_OCI_SIZE];
    g_autoptr(json_t) text = json_pack("{s:s, s:s, s:I}", "signed", image ? "kiln image 1" : "kiln head 1", image ? "image" : "hash",
                                       digest_to_oci(&s->digest, oci), "at", (json_int_t)s->at);

    json_object_set_new(text, "who", store_text_json(s->who));
    if (!image) {
        json_object_set_new(text, "log", store_text_json(s->log));
        json_object_set_new(text, "number", json_integer(s->entry));
    }
    return json_canonical(text);
}

bool store_signature_check(const StoreSignature *signature, const SignatureKey *key)
{
    g_autofree char *text = signed_text(signature);
    g_autofree guchar *bytes = NULL;
    gsize size;
    Digest id;

    signature_key_id(key, &id);
    if (!digest_equal(&id, &signature->key) || strlen(signature->signature) > TEXT_MAX)
        return false;
    bytes = g_base64_decode(signature->signature, &size);
    return signature_verify(key, text, strlen(text), bytes, size);
}

/* --- rows --- */

static StoreSignature *from_row(Query *query)
{
    StoreSignature *s = g_new0(StoreSignature, 1);
    const char *log = query_text(query, 2), *text = query_text(query, 6);

    s->number = query_int(query, 0);
    s->at = query_int(query, 1);
    s->log = g_strdup(log ? log : "");
    s->entry = query_int(query, 3);
    query_digest(query, 4, &s->digest);
    query_digest(query, 5, &s->key);
    s->signature = g_strdup(text ? text : "");
    s->who = g_strdup(query_text(query, 7));
    return s;
}

static bool from_query(Query *query, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)store_signature_free);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0)
        g_ptr_array_add(list, from_row(query));
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&list);
    return true;
}

bool store_signatures(Store *store, const Digest *image, GPtrArray **ret, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;

    if (!store_state_db(store, &db, error))
        return false;
    query = image ? database_query(db, error,
                                   "SELECT " SIGNATURE_COLUMNS " FROM signature WHERE log = 'image' AND digest = ?1 ORDER BY number", "d", image)
                  : database_query(db, error, "SELECT " SIGNATURE_COLUMNS " FROM signature WHERE log != 'image' ORDER BY number", "");
    return from_query(query, ret, error);
}

/* By @key, and well: one that came with an image may have been made up. */
static bool is_signed(Database *db, const StoreSignature *s, const SignatureKey *key, bool *ret, GError **error)
{
    g_autoptr(GPtrArray) list = NULL;
    g_autoptr(Query) query = database_query(db, error, "SELECT " SIGNATURE_COLUMNS " FROM signature WHERE log = ?1 AND entry = ?2 AND digest = ?3 AND key = ?4", "tidd",
                                            s->log, s->entry, &s->digest, &s->key);

    if (!from_query(query, &list, error))
        return false;
    *ret = false;
    for (guint i = 0; i < list->len && !*ret; i++)
        *ret = store_signature_check(list->pdata[i], key);
    return true;
}

static bool is_kept(Database *db, const StoreSignature *s, bool *ret, GError **error)
{
    int64_t known;

    if (!database_int(db, 0, &known, error, "SELECT count(*) FROM signature WHERE log = ?1 AND digest = ?2 AND key = ?3 AND signature = ?4", "tddt", s->log,
                      &s->digest, &s->key, s->signature))
        return false;
    *ret = known > 0;
    return true;
}

/* Fills @s in: the log, the entry and the digest are there. In a transaction. */
static bool add_signature(Database *db, StoreSignature *s, const SignatureKey *key, GError **error)
{
    uint8_t bytes[SIGNATURE_SIZE];
    g_autofree char *text = NULL;
    bool known;

    signature_key_id(key, &s->key);
    s->at = g_get_real_time() / G_USEC_PER_SEC;
    s->who = store_user();
    if (!is_signed(db, s, key, &known, error))
        return false;
    text = signed_text(s);
    if (!signature_sign(key, text, strlen(text), bytes, error))
        return false;
    s->signature = g_base64_encode(bytes, sizeof(bytes));
    return known || database_run(db, error, "INSERT INTO signature (at, log, entry, digest, key, signature, who) VALUES (?1,?2,?3,?4,?5,?6,?7)",
                                 "itiddtt", s->at, s->log, s->entry, &s->digest, &s->key, s->signature, s->who);
}

static bool sign_list(Database *db, GPtrArray *list, const SignatureKey *key, GError **error)
{
    for (guint i = 0; i < list->len; i++)
        if (!add_signature(db, list->pdata[i], key, error))
            return false;
    return true;
}

static StoreSignature *signature_of(const char *log, int64_t entry, const Digest *digest)
{
    StoreSignature *s = g_new0(StoreSignature, 1);

    s->log = g_strdup(log);
    s->entry = entry;
    s->digest = *digest;
    return s;
}

bool store_sign_images(Store *store, GPtrArray *images, const SignatureKey *key, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)store_signature_free);
    Database *db;

    if (!store_writable(store, error) || !store_state_db(store, &db, error) || !database_begin(db, true, error))
        return false;
    for (guint i = 0; i < images->len; i++)
        g_ptr_array_add(list, signature_of(IMAGE_LOG, 0, &((StoreImage *)images->pdata[i])->id));
    if (!sign_list(db, list, key, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error) && store_ledger_follow(store);
}

/* --- travelling --- */

#define WHO_MAX 256

json_t *store_signature_to_json(const StoreSignature *s)
{
    char image[DIGEST_OCI_SIZE], key[DIGEST_OCI_SIZE];
    json_t *document = json_pack("{s:s, s:I, s:s, s:s, s:s}", "kiln", "image signature 1", "at", (json_int_t)s->at, "image", digest_to_oci(&s->digest, image),
                                 "key", digest_to_oci(&s->key, key), "signature", s->signature);

    json_object_set_new(document, "who", store_text_json(s->who));
    return document;
}

static bool read_document(const json_t *document, const Digest *image, StoreSignature *ret)
{
    const char *kind = json_string_value(json_object_get(document, "kiln")), *about = json_string_value(json_object_get(document, "image"));
    const char *key = json_string_value(json_object_get(document, "key")), *text = json_string_value(json_object_get(document, "signature"));
    const char *who = json_string_value(json_object_get(document, "who"));

    if (g_strcmp0(kind, "image signature 1") != 0 || !about || !digest_parse(about, &ret->digest) || !digest_equal(&ret->digest, image) || !key ||
        !digest_parse(key, &ret->key) || !text || strlen(text) > TEXT_MAX || (who && strlen(who) > WHO_MAX) ||
        !json_is_integer(json_object_get(document, "at")))
        return false;
    ret->log = g_strdup(IMAGE_LOG);
    ret->at = json_integer_value(json_object_get(document, "at"));
    ret->signature = g_strdup(text);
    ret->who = g_strdup(who);
    return true;
}

bool store_signature_take(Store *store, const Digest *image, const json_t *document, bool *ret_new, GError **error)
{
    g_autoptr(StoreSignature) s = g_new0(StoreSignature, 1);
    bool known = false, ok;
    Database *db;

    if (!read_document(document, image, s))
        return fail(error, "a signature that came with the image is malformed or is another image's");
    if (!store_writable(store, error) || !store_state_db(store, &db, error) || !database_begin(db, true, error))
        return false;
    ok = is_kept(db, s, &known, error) &&
         (known || database_run(db, error, "INSERT INTO signature (at, log, entry, digest, key, signature, who) VALUES (?1,?2,?3,?4,?5,?6,?7)", "itiddtt", s->at,
                                s->log, s->entry, &s->digest, &s->key, s->signature, s->who));
    if (!ok) {
        database_rollback(db);
        return false;
    }
    if (ret_new)
        *ret_new = !known;
    return database_commit(db, error) && store_ledger_follow(store);
}

/* --- heads --- */

static bool list_heads(Database *db, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)store_signature_free);
    g_autoptr(Query) query = database_query(db, error,
                                            "SELECT 'channels', number, hash FROM channel_log WHERE number = (SELECT max(number) FROM channel_log)"
                                            " UNION ALL SELECT 'group/' || grp, number, hash FROM journal WHERE number IN"
                                            " (SELECT max(number) FROM journal GROUP BY grp)", "");
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0) {
        Digest hash;

        query_digest(query, 2, &hash);
        g_ptr_array_add(list, signature_of(query_text(query, 0), query_int(query, 1), &hash));
    }
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&list);
    return true;
}

bool store_sign_heads(Store *store, const SignatureKey *key, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) heads = NULL;
    Database *db;

    if (!store_writable(store, error) || !store_state_db(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!list_heads(db, &heads, error) || !sign_list(db, heads, key, error)) {
        database_rollback(db);
        return false;
    }
    if (!database_commit(db, error) || !store_ledger_follow(store))
        return false;
    if (ret)
        *ret = g_steal_pointer(&heads);
    return true;
}

static void problem(GPtrArray *problems, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void problem(GPtrArray *problems, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(problems, g_strdup_vprintf(format, args));
    va_end(args);
}

/* *ret_hash none: the record is gone. */
static bool find_record(Database *db, const StoreSignature *s, Digest *ret_hash, GError **error)
{
    bool channels = strcmp(s->log, CHANNEL_LOG) == 0;
    const char *group = g_str_has_prefix(s->log, GROUP_PREFIX) ? s->log + strlen(GROUP_PREFIX) : "";
    g_autoptr(Query) query = channels ? database_query(db, error, "SELECT hash FROM channel_log WHERE number = ?1", "i", s->entry)
                                      : database_query(db, error, "SELECT hash FROM journal WHERE number = ?1 AND grp = ?2", "it", s->entry, group);
    int rc = query ? query_step(query, error) : -1;

    *ret_hash = digest_none;
    if (rc > 0)
        query_digest(query, 0, ret_hash);
    return rc >= 0;
}

static bool verify_head(Database *db, const StoreSignature *s, const SignatureKey *key, GPtrArray *problems, unsigned *checked, GError **error)
{
    Digest hash, id = digest_none;

    if (!find_record(db, s, &hash, error))
        return false;
    if (digest_is_none(&hash))
        problem(problems, "record %" G_GINT64_FORMAT " of %s, which a signed head names, is gone: the log was cut off", s->entry, s->log);
    else if (!digest_equal(&hash, &s->digest))
        problem(problems, "record %" G_GINT64_FORMAT " of %s is not the one whose head was signed: the log was written anew", s->entry, s->log);
    if (key)
        signature_key_id(key, &id);
    if (!key || !digest_equal(&id, &s->key))
        return true;
    (*checked)++;
    if (!store_signature_check(s, key))
        problem(problems, "the signature of record %" G_GINT64_FORMAT " of %s is not valid", s->entry, s->log);
    return true;
}

static bool verify_numbers(Database *db, GPtrArray *problems, GError **error)
{
    int64_t written, last = 0;
    g_autoptr(Query) query = NULL;
    int rc;

    if (!database_int(db, 0, &written, error, "SELECT seq FROM sqlite_sequence WHERE name = 'signature'", "") ||
        !(query = database_query(db, error, "SELECT number FROM signature ORDER BY number", "")))
        return false;
    for (; (rc = query_step(query, error)) > 0; last = query_int(query, 0))
        store_note_gap(problems, "signatures", last, query_int(query, 0));
    store_note_gap(problems, "signatures", last, written + 1);
    return rc == 0;
}

bool store_heads_verify(Store *store, const SignatureKey *key, GPtrArray *problems, unsigned *ret_checked, GError **error)
{
    g_autoptr(GPtrArray) heads = NULL;
    unsigned checked = 0;
    Database *db;

    if (!store_state_db(store, &db, error) || !store_signatures(store, NULL, &heads, error))
        return false;
    for (guint i = 0; i < heads->len; i++)
        if (!verify_head(db, heads->pdata[i], key, problems, &checked, error))
            return false;
    if (ret_checked)
        *ret_checked = checked;
    return verify_numbers(db, problems, error);
}
