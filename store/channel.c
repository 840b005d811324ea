/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The channel log, a table of state.db that is only added to.
 */
#include "store/channel.h"

#include "base/error.h"
#include "store/image-private.h"
#include "store/store-private.h"

#include <pwd.h>
#include <unistd.h>

#define CHANNEL_MAX_LENGTH 64
#define ENTRY_COLUMNS "number, at, action, name, kind, channel, image, who, note, previous, hash"

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
    g_free(entry);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(StoreChannelEntry, store_channel_entry_free)

bool store_channel_check(const char *channel, GError **error)
{
    if (!*channel || strlen(channel) > CHANNEL_MAX_LENGTH || !g_ascii_islower(*channel) ||
        strspn(channel, "abcdefghijklmnopqrstuvwxyz0123456789._-") != strlen(channel))
        return fail_code(error, KILN_ERROR_USAGE,
                         "'%.80s' is no channel: a lower-case letter, then letters, digits, '.', '_' and '-', at most %d", channel,
                         CHANNEL_MAX_LENGTH);
    return true;
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

static void set_digest(json_t *object, const char *key, const Digest *digest)
{
    char oci[DIGEST_OCI_SIZE];

    if (!digest_is_none(digest))
        json_object_set_new(object, key, json_string(digest_to_oci(digest, oci)));
}

static void entry_hash(const StoreChannelEntry *entry, Digest *ret)
{
    g_autoptr(json_t) text = json_pack("{s:I, s:o, s:o, s:o, s:o}", "at", (json_int_t)entry->at, "action", store_text_json(entry->action), "name",
                                       store_text_json(entry->name), "kind", store_text_json(entry->kind), "channel", store_text_json(entry->channel));

    set_digest(text, "image", &entry->image);
    set_digest(text, "previous", &entry->previous);
    if (entry->who)
        json_object_set_new(text, "who", store_text_json(entry->who));
    if (entry->note)
        json_object_set_new(text, "note", store_text_json(entry->note));
    json_digest(text, ret);
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
    query_digest(query, 9, &entry->previous);
    query_digest(query, 10, &entry->hash);
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

/* Inside a transaction. */
static bool append(Database *db, const char *action, const char *name, const char *channel, const StoreImage *image,
                   const char *note, GError **error)
{
    g_autofree char *who = store_user();
    StoreChannelEntry entry = {.at = g_get_real_time() / G_USEC_PER_SEC,
                               .action = (char *)action,
                               .name = (char *)name,
                               .kind = image->kind,
                               .channel = (char *)channel,
                               .image = image->id,
                               .who = who,
                               .note = (char *)note};

    if (!last_hash(db, &entry.previous, error))
        return false;
    entry_hash(&entry, &entry.hash);
    return database_run(db, error,
                        "INSERT INTO channel_log (at, action, name, kind, channel, image, who, note, previous, hash)"
                        " VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
                        "ittttdttdd", entry.at, entry.action, entry.name, entry.kind, entry.channel,
                        &entry.image, entry.who, entry.note, &entry.previous, &entry.hash);
}

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

static bool promote_all(Store *store, Database *db, const char *name, GPtrArray *images, const char *channel, const char *note,
                        bool *ret_moved, GError **error)
{
    for (guint i = 0; i < images->len; i++) {
        const StoreImage *image = images->pdata[i];
        g_autofree char *why = NULL;
        Digest now;

        if (!store_revoked(store, &image->id, &why, error) || !channel_image(db, name, image->kind, channel, &now, error))
            return false;
        if (why)
            return fail(error, "the %s of '%s' was revoked and cannot be promoted: %s", image->kind, name, why);
        if (digest_equal(&now, &image->id))
            continue;
        *ret_moved = true;
        if (!append(db, "promote", name, channel, image, note, error))
            return false;
    }
    return true;
}

bool store_promote(Store *store, const char *name, GPtrArray *images, const char *channel, const char *note, bool *ret_moved,
                   GError **error)
{
    bool moved = false;
    Database *db;

    if (!store_channel_check(channel, error) || !store_name_check(name, error) || !store_writable(store, error) ||
        !store_state_db(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!promote_all(store, db, name, images, channel, note, &moved, error)) {
        database_rollback(db);
        return false;
    }
    if (ret_moved)
        *ret_moved = moved;
    return database_commit(db, error);
}

static void free_entry(gpointer entry)
{
    store_channel_entry_free(entry);
}

bool store_channels(Store *store, const char *name, bool history, GPtrArray **ret, GError **error)
{
    static const char current[] = "SELECT " ENTRY_COLUMNS " FROM channel_log WHERE (?1 IS NULL OR name = ?1) AND number IN"
                                  " (SELECT max(number) FROM channel_log WHERE action = 'promote' GROUP BY name, kind, channel)"
                                  " ORDER BY name, channel, kind";
    static const char all[] = "SELECT " ENTRY_COLUMNS " FROM channel_log WHERE ?1 IS NULL OR name = ?1 ORDER BY number";
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func(free_entry);
    g_autoptr(Query) query = NULL;
    Database *db;
    int rc;

    if (!store_state_db(store, &db, error) || !(query = database_query(db, error, history ? all : current, "t", name)))
        return false;
    while ((rc = query_step(query, error)) > 0)
        g_ptr_array_add(entries, entry_from_row(query));
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&entries);
    return true;
}

bool store_channels_verify(Store *store, GPtrArray *problems, GError **error)
{
    g_autoptr(GPtrArray) entries = NULL;
    Digest previous = digest_none, hash;

    if (!store_channels(store, NULL, true, &entries, error))
        return false;
    for (guint i = 0; i < entries->len; i++) {
        const StoreChannelEntry *entry = entries->pdata[i];

        entry_hash(entry, &hash);
        if (!digest_equal(&hash, &entry->hash) || !digest_equal(&previous, &entry->previous))
            g_ptr_array_add(problems, g_strdup_printf("entry %" G_GINT64_FORMAT " of the channel log (%s/%s:%s) was changed after it was written",
                                                      entry->number, entry->name, entry->kind, entry->channel));
        previous = entry->hash;
    }
    return true;
}

bool store_revoke(Store *store, const StoreImage *image, const char *why, GError **error)
{
    Database *db;

    if (!store_writable(store, error) || !store_state_db(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!append(db, "revoke", image->name, "", image, why, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

bool store_revoked(Store *store, const Digest *image, char **ret_why, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;
    int rc;

    *ret_why = NULL;
    if (!store_state_db(store, &db, error) ||
        !(query = database_query(db, error, "SELECT note FROM channel_log WHERE action = 'revoke' AND image = ?1 ORDER BY number DESC LIMIT 1",
                                 "d", image)))
        return false;
    rc = query_step(query, error);
    if (rc > 0)
        *ret_why = g_strdup(query_text(query, 0) && *query_text(query, 0) ? query_text(query, 0) : "no reason was given");
    return rc >= 0;
}
