/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The channel log, a table of state.db that is only added to: its entries, its chain, and where channels point.
 */
#include "store/channel-private.h"

#include "base/error.h"
#include "store/image-private.h"
#include "store/store-private.h"

#include <pwd.h>
#include <unistd.h>

#define CHANNEL_MAX_LENGTH 64
#define REASON_MAX 1024
#define PERSON_MAX 128
#define EXTRA_MAX 65536

void store_channel_entry_free(StoreChannelEntry *entry)
{
    if (!entry)
        return;
    g_free(entry->action);
    g_free(entry->name);
    g_free(entry->kind);
    g_free(entry->channel);
    g_free(entry->who);
    g_free(entry->note);
    json_decref(entry->extra);
    g_free(entry);
}

bool store_channel_check(const char *channel, GError **error)
{
    if (!*channel || strlen(channel) > CHANNEL_MAX_LENGTH || !g_ascii_islower(*channel) ||
        strspn(channel, "abcdefghijklmnopqrstuvwxyz0123456789._-") != strlen(channel))
        return fail_code(error, KILN_ERROR_USAGE,
                         "'%.80s' is no channel: a lower-case letter, then letters, digits, '.', '_' and '-', at most %d", channel,
                         CHANNEL_MAX_LENGTH);
    return true;
}

static bool is_plain_text(const char *text)
{
    if (!g_utf8_validate(text, -1, NULL))
        return false;
    for (; *text; text = g_utf8_next_char(text))
        if (g_unichar_iscntrl(g_utf8_get_char(text)))
            return false;
    return true;
}

static bool check_text(const char *what, const char *text, size_t max, GError **error)
{
    if (!text || (*text && strlen(text) <= max && is_plain_text(text)))
        return true;
    return fail_code(error, KILN_ERROR_USAGE, "%s is UTF-8 text without line breaks, 1 to %zu bytes", what, max);
}

bool store_why_check(const StoreWhy *why, GError **error)
{
    return check_text("a reason", why->reason, REASON_MAX, error) && check_text("whom it is done on behalf of", why->on_behalf_of, PERSON_MAX, error);
}

char *store_user(void)
{
    const struct passwd *user = getpwuid(getuid());

    return user ? g_utf8_make_valid(user->pw_name, -1) : g_strdup_printf("%u", (unsigned)getuid());
}

json_t *store_text_json(const char *text)
{
    return !text ? json_null() : g_utf8_validate(text, -1, NULL) ? json_string(text) : json_false();
}

const char *channel_kind_name(const char *kind)
{
    return strcmp(kind, "disk") == 0 ? "disk" : "container image";
}

/* --- entries and their hashes --- */

/* A field that an entry does not have is left out: entries of earlier versions keep their hashes. */
static void entry_hash(const StoreChannelEntry *entry, Digest *ret)
{
    g_autoptr(json_t) text = json_pack("{s:I, s:o, s:o, s:o, s:o}", "at", (json_int_t)entry->at, "action", store_text_json(entry->action), "name",
                                       store_text_json(entry->name), "kind", store_text_json(entry->kind), "channel", store_text_json(entry->channel));

    json_set_digest(text, "image", &entry->image);
    json_set_digest(text, "previous", &entry->previous);
    if (entry->who)
        json_object_set_new(text, "who", store_text_json(entry->who));
    if (entry->note)
        json_object_set_new(text, "note", store_text_json(entry->note));
    if (entry->extra)
        json_object_set(text, "extra", entry->extra);
    json_digest(text, ret);
}

static void read_extra(StoreChannelEntry *entry, const char *text)
{
    const char *from;

    if (!text)
        return;
    if (!json_parse(text, strlen(text), EXTRA_MAX, "an entry", &entry->extra, NULL) || !json_is_object(entry->extra)) {
        json_decref(entry->extra);
        entry->extra = json_false(); /* somebody changed it: the chain will say so */
    }
    from = json_string_value(json_object_get(entry->extra, "from"));
    if (!from || !digest_parse(from, &entry->from))
        entry->from = digest_none;
    entry->on_behalf_of = json_string_value(json_object_get(entry->extra, "on_behalf_of"));
    entry->stop = json_is_true(json_object_get(entry->extra, "stop"));
    entry->rules = json_object_get(entry->extra, "rules");
}

static StoreChannelEntry *entry_from_row(Query *query)
{
    StoreChannelEntry *entry = g_new0(StoreChannelEntry, 1);

    entry->number = query_int(query, 0);
    entry->at = query_int(query, 1);
    entry->action = g_strdup(query_text(query, 2));
    entry->name = g_strdup(query_text(query, 3));
    entry->kind = g_strdup(query_text(query, 4));
    entry->channel = g_strdup(query_text(query, 5));
    query_digest(query, 6, &entry->image);
    entry->who = g_strdup(query_text(query, 7));
    entry->note = g_strdup(query_text(query, 8));
    read_extra(entry, query_text(query, 9));
    query_digest(query, 10, &entry->previous);
    query_digest(query, 11, &entry->hash);
    return entry;
}

static bool last_hash(Database *db, Digest *ret, GError **error)
{
    g_autoptr(Query) query = database_query(db, error, "SELECT hash FROM channel_log ORDER BY number DESC LIMIT 1", "");
    int rc = query ? query_step(query, error) : -1;

    *ret = digest_none;
    if (rc > 0)
        query_digest(query, 0, ret);
    return rc >= 0;
}

static json_t *make_extra(const ChannelAddition *addition)
{
    json_t *extra = addition->extra ? json_copy((json_t *)addition->extra) : json_object();

    if (addition->why && addition->why->on_behalf_of)
        json_object_set_new(extra, "on_behalf_of", json_string(addition->why->on_behalf_of));
    if (json_object_size(extra) > 0)
        return extra;
    json_decref(extra);
    return NULL;
}

bool channel_append(Database *db, const ChannelAddition *addition, GError **error)
{
    g_autofree char *who = store_user();
    g_autoptr(json_t) extra = make_extra(addition);
    g_autofree char *text = extra ? json_canonical(extra) : NULL;
    StoreChannelEntry entry = {.at = addition->at,
                               .action = (char *)addition->action,
                               .name = (char *)addition->name,
                               .kind = (char *)addition->kind,
                               .channel = (char *)addition->channel,
                               .image = addition->image ? *addition->image : digest_none,
                               .who = who,
                               .note = addition->why ? (char *)addition->why->reason : NULL,
                               .extra = extra};

    if (!last_hash(db, &entry.previous, error))
        return false;
    entry_hash(&entry, &entry.hash);
    return database_run(db, error,
                        "INSERT INTO channel_log (at, action, name, kind, channel, image, who, note, extra, previous, hash)"
                        " VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
                        "ittttdtttdd", entry.at, entry.action, entry.name, entry.kind, entry.channel, &entry.image, entry.who, entry.note,
                        text, &entry.previous, &entry.hash);
}

/* --- reading --- */

bool channel_image(Database *db, const char *name, const char *kind, const char *channel, Digest *ret, GError **error)
{
    g_autoptr(Query) query = database_query(db, error,
                                            "SELECT image FROM channel_log WHERE name = ?1 AND kind = ?2 AND channel = ?3"
                                            " AND action = 'promote' ORDER BY number DESC LIMIT 1", "ttt", name, kind, channel);
    int rc = query ? query_step(query, error) : -1;

    *ret = digest_none;
    if (rc > 0)
        query_digest(query, 0, ret);
    return rc >= 0;
}

static void free_entry(gpointer entry)
{
    store_channel_entry_free(entry);
}

bool channel_entries(Query *query, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func(free_entry);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0)
        g_ptr_array_add(entries, entry_from_row(query));
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&entries);
    return true;
}

bool store_channels(Store *store, const char *name, bool history, GPtrArray **ret, GError **error)
{
    static const char current[] = "SELECT " ENTRY_COLUMNS " FROM channel_log WHERE (?1 IS NULL OR name = ?1) AND number IN"
                                  " (SELECT max(number) FROM channel_log WHERE action = 'promote' GROUP BY name, kind, channel)"
                                  " ORDER BY name, channel, kind";
    static const char all[] = "SELECT " ENTRY_COLUMNS " FROM channel_log WHERE ?1 IS NULL OR name = ?1 ORDER BY number";
    g_autoptr(Query) query = NULL;
    Database *db;

    if (!store_state_db(store, &db, error))
        return false;
    query = database_query(db, error, history ? all : current, "t", name);
    return channel_entries(query, ret, error);
}

/* --- verifying --- */

void store_note_gap(GPtrArray *problems, const char *log, int64_t last, int64_t next)
{
    if (next == last + 2)
        g_ptr_array_add(problems, g_strdup_printf("record %" G_GINT64_FORMAT " of the %s was taken away", last + 1, log));
    else if (next > last + 2)
        g_ptr_array_add(problems, g_strdup_printf("records %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT " of the %s were taken away", last + 1,
                                                  next - 1, log));
}

bool store_channels_verify(Store *store, GPtrArray *problems, GError **error)
{
    g_autoptr(GPtrArray) entries = NULL;
    Digest previous = digest_none, hash;
    int64_t last = 0, written;
    Database *db;

    if (!store_state_db(store, &db, error) ||
        !database_int(db, 0, &written, error, "SELECT seq FROM sqlite_sequence WHERE name = 'channel_log'", "") ||
        !store_channels(store, NULL, true, &entries, error))
        return false;
    for (guint i = 0; i < entries->len; i++) {
        const StoreChannelEntry *entry = entries->pdata[i];

        entry_hash(entry, &hash);
        if (!digest_equal(&hash, &entry->hash) || !digest_equal(&previous, &entry->previous))
            g_ptr_array_add(problems, g_strdup_printf("entry %" G_GINT64_FORMAT " of the channel log (%s/%s:%s) was changed after it was written",
                                                      entry->number, entry->name, entry->kind, entry->channel));
        store_note_gap(problems, "channel log", last, entry->number);
        last = entry->number;
        previous = entry->hash;
    }
    store_note_gap(problems, "channel log", last, written + 1);
    return true;
}
