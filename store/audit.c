/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of the audit, from the two kinds of logs.
 *
 * What journals hold is JSON by deploy: a field of another type than expected is copied as it is, one that is missing is null.
 */
#include "store/audit.h"

#include "base/error.h"
#include "store/channel.h"
#include "store/journal.h"
#include "store/signature.h"

typedef struct Row {
    int64_t from, to; /* microseconds; to 0: it lasts */
    json_t *row;
} Row;

typedef struct Audit {
    Store *store;
    const StoreAuditFilter *filter;
    GArray *rows;      /* of Row */
    GHashTable *tests; /* Digest* -> json_t* */
} Audit;

static void row_clear(gpointer data)
{
    json_decref(((Row *)data)->row);
}

static json_t *time_json(int64_t microseconds)
{
    g_autoptr(GDateTime) time = microseconds ? g_date_time_new_from_unix_utc(microseconds / G_USEC_PER_SEC) : NULL;
    g_autofree char *text = time ? g_date_time_format(time, "%Y-%m-%dT%H:%M:%SZ") : NULL;

    return text ? json_string(text) : json_null();
}

static json_t *digest_json(const Digest *digest)
{
    char oci[DIGEST_OCI_SIZE];

    return digest_is_none(digest) ? json_null() : json_string(digest_to_oci(digest, oci));
}

static json_t *text_json(const char *text)
{
    g_autofree char *valid = text ? g_utf8_make_valid(text, -1) : NULL;

    return valid ? json_string(valid) : json_null();
}

static bool tests_of(Audit *audit, const Digest *image, json_t **ret, GError **error)
{
    json_t *tests = g_hash_table_lookup(audit->tests, image);

    if (!tests) {
        if (!store_image_tests(audit->store, image, &tests, error))
            return false;
        g_hash_table_insert(audit->tests, g_memdup2(image, sizeof(*image)), tests);
    }
    *ret = json_incref(tests);
    return true;
}

/* --- what is asked for --- */

static bool names_image(const json_t *row, const char *key, const GArray *images)
{
    const char *text = json_string_value(json_object_get(row, key));
    Digest digest;

    if (!text || !digest_parse(text, &digest))
        return false;
    for (guint i = 0; i < images->len; i++)
        if (digest_equal(&digest, &g_array_index(images, Digest, i)))
            return true;
    return false;
}

static bool is_wanted(const StoreAuditFilter *filter, const Row *row)
{
    int64_t since = filter->since * G_USEC_PER_SEC;

    if (row->from < since && row->to < since)
        return false;
    return !filter->images || names_image(row->row, "image", filter->images) || names_image(row->row, "from_image", filter->images);
}

static int oldest_first(gconstpointer a, gconstpointer b)
{
    const Row *one = a, *other = b;

    return one->from < other->from ? -1 : one->from > other->from;
}

/* --- the channel log --- */

/* When the channel moved on; 0: it has not. */
static int64_t moved_on(GPtrArray *entries, guint index)
{
    const StoreChannelEntry *entry = entries->pdata[index];

    for (guint i = index + 1; i < entries->len; i++) {
        const StoreChannelEntry *next = entries->pdata[i];

        if (strcmp(next->action, "promote") == 0 && strcmp(next->name, entry->name) == 0 && strcmp(next->kind, entry->kind) == 0 &&
            strcmp(next->channel, entry->channel) == 0)
            return next->at * G_USEC_PER_SEC;
    }
    return 0;
}

static bool add_promotion(Audit *audit, const StoreChannelEntry *entry, json_t *row, GError **error)
{
    json_t *tests;

    json_object_set_new(row, "kind", text_json(entry->kind));
    json_object_set_new(row, "channel", text_json(entry->channel));
    json_object_set_new(row, "image", digest_json(&entry->image));
    json_object_set_new(row, "from_image", digest_json(&entry->from));
    if (!tests_of(audit, &entry->image, &tests, error))
        return false;
    json_object_set_new(row, "tests", tests);
    json_object_set_new(row, "back", json_boolean(json_is_true(json_object_get(entry->extra, "back"))));
    return true;
}

static bool add_entry(Audit *audit, GPtrArray *entries, guint index, GError **error)
{
    const StoreChannelEntry *entry = entries->pdata[index];
    bool promotion = strcmp(entry->action, "promote") == 0;
    Row row = {.from = entry->at * G_USEC_PER_SEC, .to = promotion ? moved_on(entries, index) : 0};

    row.row = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "what", text_json(entry->action), "from", time_json(row.from), "to",
                        time_json(row.to), "who", text_json(entry->who), "on_behalf_of", text_json(entry->on_behalf_of), "reason",
                        text_json(entry->note), "name", text_json(entry->name));
    g_array_append_val(audit->rows, row);
    if (promotion)
        return add_promotion(audit, entry, row.row, error);
    if (strcmp(entry->action, "rules") != 0) {
        json_object_set_new(row.row, "kind", text_json(entry->kind));
        json_object_set_new(row.row, "image", digest_json(&entry->image));
        if (strcmp(entry->action, "revoke") == 0)
            json_object_set_new(row.row, "stop", json_boolean(entry->stop));
    } else {
        json_object_set_new(row.row, "channel", text_json(entry->channel));
        json_object_set_new(row.row, "rules", entry->rules ? json_incref((json_t *)entry->rules) : json_null());
    }
    return true;
}

static bool add_channels(Audit *audit, GError **error)
{
    g_autoptr(GPtrArray) entries = NULL;

    if (!store_channels(audit->store, NULL, true, &entries, error))
        return false;
    for (guint i = 0; i < entries->len; i++)
        if (!add_entry(audit, entries, i, error))
            return false;
    return true;
}

/* --- journals --- */

static void copy_fields(json_t *row, const json_t *record, const char *const *fields)
{
    for (; *fields; fields++) {
        json_t *value = json_object_get(record, *fields);

        json_object_set_new(row, *fields, value ? json_incref(value) : json_null());
    }
}

static json_t *journal_row(const StoreJournalRecord *record, const char *what)
{
    return json_pack("{s:s, s:o, s:n, s:o, s:o, s:I}", "what", what, "from", time_json(record->at), "to", "who", text_json(record->who), "group",
                     text_json(record->group), "epoch", (json_int_t)record->epoch);
}

/* The begin says what it knows of tests; else the image does. */
static bool add_rollout_tests(Audit *audit, json_t *row, GError **error)
{
    const char *image = json_string_value(json_object_get(row, "image"));
    json_t *tests;
    Digest digest;

    if (!json_is_null(json_object_get(row, "tests")) || !image || !digest_parse(image, &digest))
        return true;
    if (!tests_of(audit, &digest, &tests, error))
        return false;
    json_object_set_new(row, "tests", tests);
    return true;
}

static void end_rollout(Row *rollout, const StoreJournalRecord *record, const char *outcome, bool final)
{
    json_object_set_new(rollout->row, "outcome", json_string(outcome));
    if (!final)
        return;
    rollout->to = record->at;
    json_object_set_new(rollout->row, "to", time_json(record->at));
}

static bool add_begin(Audit *audit, const StoreJournalRecord *record, GError **error)
{
    static const char *const fields[] = {"revision", "image",        "from_revision", "from_image", "plan",
                                         "reason",   "on_behalf_of", "approver",      "tests",      NULL};
    Row row = {.from = record->at, .row = journal_row(record, "rollout")};

    copy_fields(row.row, record->record, fields);
    json_object_set_new(row.row, "outcome", json_string("running"));
    json_object_set_new(row.row, "cause", json_null());
    g_array_append_val(audit->rows, row);
    return add_rollout_tests(audit, row.row, error);
}

static void add_verb(Audit *audit, const StoreJournalRecord *record)
{
    static const char *const fields[] = {"verb", "arguments", "reason", "on_behalf_of", NULL};
    Row row = {.from = record->at, .row = journal_row(record, "verb")};

    copy_fields(row.row, record->record, fields);
    g_array_append_val(audit->rows, row);
}

/* *open: index of the group's rollout that has no end yet; -1: none. */
static bool add_record(Audit *audit, const StoreJournalRecord *record, int *open, GError **error)
{
    const char *what = json_string_value(json_object_get(record->record, "do"));
    Row *rollout = *open >= 0 ? &g_array_index(audit->rows, Row, *open) : NULL;
    bool ours = rollout && json_equal(json_object_get(rollout->row, "revision"), json_object_get(record->record, "revision"));
    json_t *cause = json_object_get(record->record, "cause");

    if (g_strcmp0(what, "begin") == 0) {
        if (rollout)
            end_rollout(rollout, record, "superseded", true);
        *open = (int)audit->rows->len;
        return add_begin(audit, record, error);
    }
    if (g_strcmp0(what, "verb") == 0)
        add_verb(audit, record);
    if (g_strcmp0(what, "failed") == 0 && ours) {
        end_rollout(rollout, record, "rolling back", false);
        json_object_set_new(rollout->row, "cause", cause ? json_incref(cause) : json_null());
    } else if (rollout && (g_strcmp0(what, "stable") == 0 || g_strcmp0(what, "returned") == 0)) {
        end_rollout(rollout, record, ours && strcmp(what, "stable") == 0 ? "stable" : "rolled back", true);
        *open = -1;
    }
    return true;
}

static bool add_group(Audit *audit, const char *group, GError **error)
{
    g_autoptr(GPtrArray) records = NULL;
    int open = -1;

    if (!store_journal_read(audit->store, group, 0, &records, error))
        return false;
    for (guint i = 0; i < records->len; i++)
        if (!add_record(audit, records->pdata[i], &open, error))
            return false;
    return true;
}

static bool add_groups(Audit *audit, GError **error)
{
    g_autoptr(GPtrArray) groups = NULL;

    if (!store_journal_groups(audit->store, &groups, error))
        return false;
    for (guint i = 0; i < groups->len; i++)
        if (!add_group(audit, groups->pdata[i], error))
            return false;
    return true;
}

/* --- all of it --- */

static void json_free(gpointer value)
{
    json_decref(value);
}

bool store_audit(Store *store, const StoreAuditFilter *filter, json_t **ret, GError **error)
{
    g_autoptr(GArray) rows = g_array_new(FALSE, FALSE, sizeof(Row));
    g_autoptr(GHashTable) tests = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, json_free);
    Audit audit = {.store = store, .filter = filter, .rows = rows, .tests = tests};

    g_array_set_clear_func(rows, row_clear);
    if (filter->group ? !add_group(&audit, filter->group, error) : !add_channels(&audit, error) || !add_groups(&audit, error))
        return false;
    g_array_sort(rows, oldest_first);
    *ret = json_array();
    for (guint i = 0; i < rows->len; i++)
        if (is_wanted(filter, &g_array_index(rows, Row, i)))
            json_array_append(*ret, g_array_index(rows, Row, i).row);
    return true;
}

bool store_audit_verify(Store *store, const SignatureKey *key, GPtrArray *problems, unsigned *ret_heads, GError **error)
{
    return store_channels_verify(store, problems, error) && store_journals_verify(store, problems, error) &&
           store_heads_verify(store, key, problems, ret_heads, error);
}
