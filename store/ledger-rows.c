/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of state.db as JSON and back.
 *
 * A row is the list of its columns in the order below. Logs are only added to and have rising numbers. Of the other tables, `change` knows
 * which row changed when; a row that is no longer there is told by its key.
 */
#include "store/ledger.h"

#include "base/error.h"
#include "store/store-private.h"

#define PIECE_BYTES (4u << 20) /* a blob ends with the row that passes it */
#define PIECE_CHANGES 500
#define COLUMNS_MAX 12

typedef struct LedgerTable {
    const char *name, *columns, *types;
    bool log;
    const char *a, *b; /* key, for tables that are no logs; its columns are the first, or the first twice */
} LedgerTable;

static const LedgerTable tables[] = {
    {"channel_log", "number,at,action,name,kind,channel,image,who,note,extra,previous,hash", "iittttdtttdd", true, NULL, NULL},
    {"journal", "number,at,epoch,grp,who,record,previous,hash", "iiitttdd", true, NULL, NULL},
    {"signature", "number,at,log,entry,digest,key,signature,who", "iitiddtt", true, NULL, NULL},
    {"identity", "what,id", "td", false, "what", "what"},
    {"name", "name,kind,image,bake,at", "ttdii", false, "name", "kind"},
    {"hold", "grp,image", "td", false, "grp", "image"},
    {"journal_epoch", "grp,epoch", "ti", false, "grp", "grp"},
    {"lineage", "image,parent", "dd", false, "image", "parent"},
    {"published", "bake,mark,record", "iit", false, "bake", "bake"},
    {"repository_tag", "repository,tag,manifest,image,at,wide", "ttddit", false, "repository", "tag"},
};

static const LedgerTable *find_table(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++)
        if (strcmp(tables[i].name, name) == 0)
            return &tables[i];
    return NULL;
}

/* --- out --- */

static json_t *column_json(Query *query, int column, char type, size_t *bytes)
{
    char oci[DIGEST_OCI_SIZE];
    Digest digest;

    if (query_is_null(query, column))
        return json_null();
    if (type == 'i')
        return json_integer(query_int(query, column));
    if (type == 't') {
        const char *text = query_text(query, column);

        *bytes += text ? strlen(text) : 0;
        return store_text_json(text);
    }
    query_digest(query, column, &digest);
    return json_string(digest_to_oci(&digest, oci));
}

/* The columns from @first on. */
static json_t *row_json(Query *query, int first, const char *types, size_t *bytes)
{
    json_t *row = json_array();

    for (int i = 0; types[i]; i++) {
        json_array_append_new(row, column_json(query, first + i, types[i], bytes));
        *bytes += 24;
    }
    return row;
}

static void add_row(json_t *object, const char *table, json_t *row)
{
    json_t *list = json_object_get(object, table);

    if (!list) {
        list = json_array();
        json_object_set_new(object, table, list);
    }
    json_array_append_new(list, row);
}

static int64_t *log_position(LedgerThrough *through, const char *table)
{
    return strcmp(table, "channel_log") == 0 ? &through->channel_log : strcmp(table, "journal") == 0 ? &through->journal : &through->signature;
}

static bool collect_log(Database *db, const LedgerTable *table, LedgerThrough *through, json_t *rows, size_t *bytes, bool *complete, GError **error)
{
    int64_t *position = log_position(through, table->name);
    g_autofree char *sql = g_strdup_printf("SELECT %s FROM %s WHERE number > ?1 ORDER BY number", table->columns, table->name);
    g_autoptr(Query) query = database_query(db, error, sql, "i", *position);
    int rc = query ? 0 : -1;

    while (query && *complete && (rc = query_step(query, error)) > 0) {
        if (*bytes > PIECE_BYTES) {
            *complete = false;
            break;
        }
        add_row(rows, table->name, row_json(query, 0, table->types, bytes));
        *position = query_int(query, 0);
    }
    return rc >= 0;
}

static char *prefixed_columns(const LedgerTable *table)
{
    g_auto(GStrv) columns = g_strsplit(table->columns, ",", -1);
    g_autofree char *joined = g_strjoinv(", t.", columns);

    return g_strconcat("t.", joined, NULL);
}

static char key_type(const LedgerTable *table, const char *key)
{
    return table->types[key == table->b && strcmp(table->a, table->b) != 0 ? 1 : 0];
}

static bool collect_changes(Database *db, const LedgerTable *table, int64_t since, int64_t upto, json_t *rows, json_t *gone, size_t *bytes,
                            GError **error)
{
    g_autofree char *columns = prefixed_columns(table);
    g_autofree char *sql = g_strdup_printf("SELECT c.a, c.b, %s FROM change c LEFT JOIN %s t ON t.%s = c.a AND t.%s = c.b"
                                           " WHERE c.tbl = ?1 AND c.number > ?2 AND c.number <= ?3 ORDER BY c.number",
                                           columns, table->name, table->a, table->b);
    g_autoptr(Query) query = database_query(db, error, sql, "tii", table->name, since, upto);
    const char keys[] = {key_type(table, table->a), key_type(table, table->b), '\0'};
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0) {
        bool there = !query_is_null(query, 2);

        add_row(there ? rows : gone, table->name, there ? row_json(query, 2, table->types, bytes) : row_json(query, 0, keys, bytes));
    }
    return rc >= 0;
}

/* The tables before the logs: a blob that ends early has the older things. */
static bool collect_tables(Database *db, LedgerThrough *through, json_t *rows, json_t *gone, size_t *bytes, bool *complete, GError **error)
{
    int64_t since = through->change, upto, left;

    if (!database_int(db, since, &upto, error, "SELECT max(number) FROM (SELECT number FROM change WHERE number > ?1 ORDER BY number LIMIT ?2)", "ii",
                      since, (int64_t)PIECE_CHANGES) ||
        !database_int(db, 0, &left, error, "SELECT count(*) FROM change WHERE number > ?1", "i", upto))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++)
        if (!tables[i].log && !collect_changes(db, &tables[i], since, upto, rows, gone, bytes, error))
            return false;
    through->change = upto;
    *complete = left == 0;
    return true;
}

static bool row_hash(Database *db, const char *table, int64_t number, Digest *ret, GError **error)
{
    g_autofree char *sql = g_strdup_printf("SELECT hash FROM %s WHERE number = ?1", table);
    g_autoptr(Query) query = database_query(db, error, sql, "i", number);
    int rc = query ? query_step(query, error) : -1;

    *ret = digest_none;
    if (rc > 0)
        query_digest(query, 0, ret);
    return rc >= 0;
}

static bool fill_hashes(Database *db, LedgerThrough *through, GError **error)
{
    return row_hash(db, "channel_log", through->channel_log, &through->channel_hash, error) &&
           row_hash(db, "journal", through->journal, &through->journal_hash, error);
}

bool ledger_collect(Database *state, const LedgerThrough *since, json_t **ret, LedgerThrough *ret_through, GError **error)
{
    g_autoptr(json_t) document = json_pack("{s:{}, s:{}}", "rows", "gone");
    json_t *rows = json_object_get(document, "rows"), *gone = json_object_get(document, "gone");
    LedgerThrough through = *since;
    bool complete = true;
    size_t bytes = 0;

    if (!collect_tables(state, &through, rows, gone, &bytes, &complete, error))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(tables) && complete; i++)
        if (tables[i].log && !collect_log(state, &tables[i], &through, rows, &bytes, &complete, error))
            return false;
    if (!fill_hashes(state, &through, error))
        return false;
    json_object_set_new(document, "complete", json_boolean(complete));
    *ret_through = through;
    *ret = g_steal_pointer(&document);
    return true;
}

static bool collect_pieces(Database *state, GPtrArray *list, GError **error)
{
    LedgerThrough through = {0};
    json_t *document;

    do {
        if (!ledger_collect(state, &through, &document, &through, error))
            return false;
        g_ptr_array_add(list, document);
    } while (!json_is_true(json_object_get(document, "complete")));
    return true;
}

bool ledger_collect_all(Database *state, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);

    if (!database_read(state, error))
        return false;
    if (!collect_pieces(state, list, error)) {
        database_rollback(state);
        return false;
    }
    database_rollback(state);
    *ret = g_steal_pointer(&list);
    return true;
}

/* --- how far --- */

bool ledger_newest(Database *state, LedgerThrough *ret, GError **error)
{
    return database_int(state, 0, &ret->channel_log, error, "SELECT max(number) FROM channel_log", "") &&
           database_int(state, 0, &ret->journal, error, "SELECT max(number) FROM journal", "") &&
           database_int(state, 0, &ret->signature, error, "SELECT max(number) FROM signature", "") &&
           database_int(state, 0, &ret->change, error, "SELECT max(number) FROM change", "") && fill_hashes(state, ret, error);
}

bool ledger_has(Database *state, const LedgerThrough *through, bool *ret, GError **error)
{
    LedgerThrough newest, there = *through;

    if (!ledger_newest(state, &newest, error) || !fill_hashes(state, &there, error))
        return false;
    *ret = newest.channel_log >= through->channel_log && newest.journal >= through->journal && newest.signature >= through->signature &&
           newest.change >= through->change && digest_equal(&there.channel_hash, &through->channel_hash) &&
           digest_equal(&there.journal_hash, &through->journal_hash);
    return true;
}

json_t *ledger_through_json(const LedgerThrough *through)
{
    char channel[DIGEST_OCI_SIZE], journal[DIGEST_OCI_SIZE];

    return json_pack("{s:I, s:I, s:I, s:I, s:s, s:s}", "channel_log", (json_int_t)through->channel_log, "journal", (json_int_t)through->journal,
                     "signature", (json_int_t)through->signature, "change", (json_int_t)through->change, "channel_hash",
                     digest_to_oci(&through->channel_hash, channel), "journal_hash", digest_to_oci(&through->journal_hash, journal));
}

bool ledger_through_parse(const json_t *json, LedgerThrough *ret)
{
    const char *channel, *journal;
    json_int_t numbers[4];

    if (json_unpack((json_t *)json, "{s:I, s:I, s:I, s:I, s:s, s:s}", "channel_log", &numbers[0], "journal", &numbers[1], "signature",
                    &numbers[2], "change", &numbers[3], "channel_hash", &channel, "journal_hash", &journal) < 0)
        return false;
    *ret = (LedgerThrough){.channel_log = numbers[0], .journal = numbers[1], .signature = numbers[2], .change = numbers[3]};
    return digest_parse(channel, &ret->channel_hash) && digest_parse(journal, &ret->journal_hash);
}

/* --- in --- */

/* A text that was none in the database it came from is empty here; the log's own hash shows it. */
static bool value_of(const json_t *json, char type, DatabaseValue *ret)
{
    *ret = (DatabaseValue){.integer = 0};
    if (type == 'i')
        ret->integer = json_integer_value(json);
    else if (type == 't')
        ret->text = json_is_false(json) ? "" : json_string_value(json);
    else if (!json_is_null(json) && (!json_is_string(json) || !digest_parse(json_string_value(json), &ret->digest)))
        return false;
    return type == 'd' || json_is_null(json) || (type == 'i' ? json_is_integer(json) : json_is_string(json) || json_is_false(json));
}

static bool run_row(Database *db, const char *sql, const char *types, const json_t *row, const char *table, GError **error)
{
    DatabaseValue values[COLUMNS_MAX];

    if (json_array_size(row) != strlen(types))
        return fail(error, "a row of '%s' in the ledger has another number of columns", table);
    for (size_t i = 0; types[i]; i++)
        if (!value_of(json_array_get(row, i), types[i], &values[i]))
            return fail(error, "a row of '%s' in the ledger has a column of another kind", table);
    return database_run_values(db, error, sql, types, values);
}

static char *put_sql(const LedgerTable *table)
{
    GString *sql = g_string_new(NULL);

    g_string_printf(sql, "INSERT OR REPLACE INTO %s (%s) VALUES (?1", table->name, table->columns);
    for (size_t i = 1; i < strlen(table->types); i++)
        g_string_append_printf(sql, ",?%zu", i + 1);
    g_string_append_c(sql, ')');
    return g_string_free(sql, FALSE);
}

static bool put_rows(Database *db, const LedgerTable *table, const json_t *list, GError **error)
{
    g_autofree char *sql = put_sql(table);
    size_t i;
    json_t *row;

    json_array_foreach((json_t *)list, i, row)
        if (!run_row(db, sql, table->types, row, table->name, error))
            return false;
    return true;
}

static bool drop_row(Database *db, const LedgerTable *table, const json_t *key, GError **error)
{
    g_autofree char *sql = g_strdup_printf("DELETE FROM %s WHERE %s = ?1 AND %s = ?2", table->name, table->a, table->b);
    const char types[] = {key_type(table, table->a), key_type(table, table->b), '\0'};

    return run_row(db, sql, types, key, table->name, error);
}

bool ledger_apply(Database *state, const json_t *document, GError **error)
{
    const char *name;
    json_t *list, *key;
    size_t i;

    json_object_foreach(json_object_get(document, "gone"), name, list) {
        const LedgerTable *table = find_table(name);

        json_array_foreach(list, i, key)
            if (table && !table->log && !drop_row(state, table, key, error))
                return false;
    }
    json_object_foreach(json_object_get(document, "rows"), name, list) {
        const LedgerTable *table = find_table(name);

        if (!table)
            return fail(error, "the ledger has rows of '%s', which this kiln does not know: upgrade kiln", name);
        if (!put_rows(state, table, list, error))
            return false;
    }
    return true;
}

/* --- mirroring --- */

/* Text of the row -> the row, borrowed from the documents. */
static GHashTable *rows_of(GPtrArray *documents, const char *table)
{
    GHashTable *rows = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    json_t *row;
    size_t i;

    for (guint d = 0; d < documents->len; d++)
        json_array_foreach(json_object_get(json_object_get(documents->pdata[d], "rows"), table), i, row)
            g_hash_table_insert(rows, json_canonical(row), row);
    return rows;
}

static json_t *key_of(const LedgerTable *table, const json_t *row)
{
    json_t *key = json_array();

    json_array_append(key, json_array_get(row, 0));
    json_array_append(key, json_array_get(row, strcmp(table->a, table->b) == 0 ? 0 : 1));
    return key;
}

static bool is_within(GPtrArray *documents, GPtrArray *others, const char *table)
{
    g_autoptr(GHashTable) rows = rows_of(documents, table), all = rows_of(others, table);
    GHashTableIter iter;
    gpointer text;

    g_hash_table_iter_init(&iter, rows);
    while (g_hash_table_iter_next(&iter, &text, NULL))
        if (!g_hash_table_contains(all, text))
            return false;
    return true;
}

static bool is_empty(GPtrArray *documents)
{
    static const char *const own[] = {"published", "name", "lineage", "hold", "channel_log", "journal", "signature"};

    for (size_t i = 0; i < G_N_ELEMENTS(own); i++) {
        g_autoptr(GHashTable) rows = rows_of(documents, own[i]);

        if (g_hash_table_size(rows) > 0)
            return false;
    }
    return true;
}

/* What is here may be written over when it came from there, or is there as well. Logs are looked at one by one, later. */
static bool check_copy(Database *state, GPtrArray *here, GPtrArray *there, GError **error)
{
    int64_t copied, newest;

    if (is_empty(here))
        return true;
    if (!is_within(here, there, "identity"))
        return fail(error, "the store to copy into is another one, not a copy of the one to copy from: take an empty folder");
    if (!database_int(state, -1, &copied, error, "SELECT change FROM copied", "") ||
        !database_int(state, 0, &newest, error, "SELECT max(number) FROM change", ""))
        return false;
    return copied == newest || is_within(here, there, "published") ||
           fail(error, "the store to copy into has images of its own since it was copied: it is no copy any more, take another folder");
}

static bool note_copied(Database *state, GError **error)
{
    return database_run(state, error, "DELETE FROM copied", "") &&
           database_run(state, error, "INSERT INTO copied SELECT coalesce(max(number), 0) FROM change", "");
}

static bool drop_others(Database *state, const LedgerTable *table, GHashTable *theirs, GHashTable *ours, GError **error)
{
    GHashTableIter iter;
    gpointer text, row;

    g_hash_table_iter_init(&iter, ours);
    while (g_hash_table_iter_next(&iter, &text, &row)) {
        g_autoptr(json_t) key = table->log ? NULL : key_of(table, row);

        if (g_hash_table_contains(theirs, text))
            continue;
        if (table->log)
            return fail(error, "the store to copy into has an entry in '%s' that the one to copy from does not have: it is no copy of it, take another folder",
                        table->name);
        if (!drop_row(state, table, key, error))
            return false;
    }
    return true;
}

static bool put_others(Database *state, const LedgerTable *table, GHashTable *theirs, GHashTable *ours, GError **error)
{
    g_autofree char *sql = put_sql(table);
    GHashTableIter iter;
    gpointer text, row;

    g_hash_table_iter_init(&iter, theirs);
    while (g_hash_table_iter_next(&iter, &text, &row))
        if (!g_hash_table_contains(ours, text) && !run_row(state, sql, table->types, row, table->name, error))
            return false;
    return true;
}

bool ledger_mirror(Database *state, GPtrArray *documents, GError **error)
{
    g_autoptr(GPtrArray) here = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);

    if (!collect_pieces(state, here, error) || !check_copy(state, here, documents, error))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(tables); i++) {
        g_autoptr(GHashTable) theirs = rows_of(documents, tables[i].name), ours = rows_of(here, tables[i].name);

        if (!drop_others(state, &tables[i], theirs, ours, error) || !put_others(state, &tables[i], theirs, ours, error))
            return false;
    }
    return note_copied(state, error);
}
