/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving channels: what they ask for before they move, compare-and-set, and the way back.
 */
#include "base/error.h"
#include "store/channel-private.h"
#include "store/image-private.h"
#include "store/ledger.h"
#include "store/store-private.h"

#define EXPECT_DIGITS_MIN 12
#define KINDS 2u /* disk and oci */

typedef struct Promoting {
    Store *store;
    Database *db;
    const StorePromotion *promotion;
    GPtrArray *moving; /* of StoreImage*, borrowed: those that the channel does not point at already */
    int64_t at;
    int64_t move; /* number of the first entry: what moved together has it in common */
} Promoting;

/* --- rules --- */

void store_channel_rules_read(const json_t *rules, StoreChannelRules *ret)
{
    *ret = (StoreChannelRules){.reason = json_is_true(json_object_get(rules, "reason")),
                               .test = json_is_true(json_object_get(rules, "test")),
                               .from = json_string_value(json_object_get(rules, "from"))};
}

static json_t *rules_json(const StoreChannelRules *rules)
{
    json_t *object = json_object();

    if (rules->reason)
        json_object_set_new(object, "reason", json_true());
    if (rules->test)
        json_object_set_new(object, "test", json_true());
    if (rules->from)
        json_object_set_new(object, "from", json_string(rules->from));
    return object;
}

/* Inside a transaction. */
static bool add_rules(Database *db, const char *name, const char *channel, const StoreChannelRules *rules, const StoreWhy *why, GError **error)
{
    g_autoptr(json_t) extra = json_pack("{s:o}", "rules", rules_json(rules));
    ChannelAddition addition = {.at = g_get_real_time() / G_USEC_PER_SEC,
                                .action = "rules",
                                .name = name,
                                .kind = "",
                                .channel = channel,
                                .why = why,
                                .extra = extra};

    return channel_append(db, &addition, error);
}

bool store_channel_set_rules(Store *store, const char *name, const char *channel, const StoreChannelRules *rules, const StoreWhy *why,
                             GError **error)
{
    Database *db;

    if (!store_name_check(name, error) || !store_channel_check(channel, error) || (rules->from && !store_channel_check(rules->from, error)) ||
        !store_why_check(why, error))
        return false;
    if (g_strcmp0(rules->from, channel) == 0)
        return fail_code(error, KILN_ERROR_USAGE, "channel '%s:%s' cannot ask for images that come from itself", name, channel);
    if (!store_writable(store, error) || !store_state_db(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!add_rules(db, name, channel, rules, why, error)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error) && store_ledger_follow(store);
}

static bool rules_in_force(Database *db, const char *name, const char *channel, GPtrArray **ret, GError **error)
{
    g_autoptr(Query) query = database_query(db, error,
                                            "SELECT " ENTRY_COLUMNS " FROM channel_log WHERE action = 'rules' AND (?1 IS NULL OR name = ?1)"
                                            " AND (?2 IS NULL OR channel = ?2) AND number IN (SELECT max(number) FROM channel_log"
                                            " WHERE action = 'rules' GROUP BY name, channel) ORDER BY name, channel",
                                            "tt", name, channel);

    return channel_entries(query, ret, error);
}

bool store_channel_rules(Store *store, const char *name, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) entries = NULL;
    Database *db;

    if (!store_state_db(store, &db, error) || !rules_in_force(db, name, NULL, &entries, error))
        return false;
    for (guint i = entries->len; i-- > 0;)
        if (json_object_size(((StoreChannelEntry *)entries->pdata[i])->rules) == 0)
            g_ptr_array_remove_index(entries, i);
    *ret = g_steal_pointer(&entries);
    return true;
}

static bool check_test(Promoting *p, const StoreImage *image, GError **error)
{
    g_autoptr(json_t) tests = NULL;

    if (!store_image_tests(p->store, &image->id, &tests, error))
        return false;
    return json_array_size(tests) > 0 ||
           fail(error, "channel '%s:%s' asks for a passed test, and none was recorded for the %s: bake it with a test provisioner",
                p->promotion->name, p->promotion->channel, channel_kind_name(image->kind));
}

static bool check_from(Promoting *p, const StoreImage *image, const char *from, GError **error)
{
    int64_t known;

    if (!database_int(p->db, 0, &known, error,
                      "SELECT count(*) FROM channel_log WHERE action = 'promote' AND name = ?1 AND kind = ?2 AND channel = ?3 AND image = ?4",
                      "tttd", p->promotion->name, image->kind, from, &image->id))
        return false;
    return known > 0 || fail(error, "channel '%s:%s' takes only what was in '%s:%s', and this %s never was", p->promotion->name,
                             p->promotion->channel, p->promotion->name, from, channel_kind_name(image->kind));
}

static bool check_rules(Promoting *p, const StoreChannelRules *rules, GError **error)
{
    const StorePromotion *promotion = p->promotion;

    if (rules->reason && !promotion->why.reason)
        return fail_code(error, KILN_ERROR_USAGE, "channel '%s:%s' asks for a reason: give --reason", promotion->name, promotion->channel);
    for (guint i = 0; i < p->moving->len && !promotion->back; i++) {
        const StoreImage *image = p->moving->pdata[i];

        if ((rules->test && !check_test(p, image, error)) || (rules->from && !check_from(p, image, rules->from, error)))
            return false;
    }
    return true;
}

/* --- compare-and-set --- */

static bool is_expected(const char *expect, const Digest *now)
{
    const char *digits = g_str_has_prefix(expect, "sha256:") ? expect + strlen("sha256:") : expect;
    char hex[DIGEST_HEX_SIZE];

    return !digest_is_none(now) && g_str_has_prefix(digest_to_hex(now, hex), digits);
}

static bool check_expect_form(const char *expect, GError **error)
{
    const char *digits = g_str_has_prefix(expect, "sha256:") ? expect + strlen("sha256:") : expect;
    size_t size = strlen(digits);

    return strcmp(expect, "none") == 0 || (size >= EXPECT_DIGITS_MIN && size <= 64 && strspn(digits, "0123456789abcdef") == size) ||
           fail_code(error, KILN_ERROR_USAGE, "--expect takes an image ID, %d or more of its hex digits, or none, not '%.80s'", EXPECT_DIGITS_MIN,
                     expect);
}

static bool check_expect(Promoting *p, GError **error)
{
    const StorePromotion *promotion = p->promotion;
    g_autoptr(GString) there = g_string_new(NULL);
    bool met = strcmp(promotion->expect, "none") == 0;
    char oci[DIGEST_OCI_SIZE];

    for (guint i = 0; i < promotion->images->len; i++) {
        const StoreImage *image = promotion->images->pdata[i];
        Digest now;

        if (!channel_image(p->db, promotion->name, image->kind, promotion->channel, &now, error))
            return false;
        if (digest_is_none(&now))
            continue;
        met = strcmp(promotion->expect, "none") != 0 && (met || is_expected(promotion->expect, &now));
        g_string_append_printf(there, "%s%s %s", there->len ? " and " : "", image->kind, digest_to_oci(&now, oci));
    }
    return met || fail(error, "channel '%s:%s' points at %s, not at %s as expected; nothing was changed", promotion->name, promotion->channel,
                       there->len ? there->str : "nothing", promotion->expect);
}

/* --- promoting --- */

static bool check_not_revoked(Promoting *p, const StoreImage *image, GError **error)
{
    g_autofree char *why = NULL;

    if (!store_revoked(p->store, &image->id, &why, error))
        return false;
    return !why || fail(error, "the %s of '%s' was revoked and cannot be promoted: %s", channel_kind_name(image->kind), p->promotion->name, why);
}

/* Looked up again: prune, which needs the lock that we have, may have been here since the caller looked. */
static bool check_bytes(Promoting *p, const StoreImage *image, GError **error)
{
    g_autoptr(StoreImage) now = NULL;
    Database *catalog;

    return store_catalog(p->store, &catalog, error) && image_by_id(catalog, &image->id, image->name, &now, error) &&
           (!now || image_check_bytes(now, error));
}

static bool find_moving(Promoting *p, GError **error)
{
    const StorePromotion *promotion = p->promotion;

    for (guint i = 0; i < promotion->images->len; i++) {
        StoreImage *image = promotion->images->pdata[i];
        Digest now;

        if (!check_not_revoked(p, image, error) || !check_bytes(p, image, error) || !channel_image(p->db, promotion->name, image->kind, promotion->channel, &now, error))
            return false;
        if (!digest_equal(&now, &image->id))
            g_ptr_array_add(p->moving, image);
    }
    return true;
}

static bool move_image(Promoting *p, const StoreImage *image, GError **error)
{
    const StorePromotion *promotion = p->promotion;
    g_autoptr(json_t) extra = json_pack("{s:I}", "move", (json_int_t)p->move);
    ChannelAddition addition = {.at = p->at,
                                .action = "promote",
                                .name = promotion->name,
                                .kind = image->kind,
                                .channel = promotion->channel,
                                .image = &image->id,
                                .why = &promotion->why,
                                .extra = extra};
    char oci[DIGEST_OCI_SIZE];
    Digest now;

    if (!channel_image(p->db, promotion->name, image->kind, promotion->channel, &now, error))
        return false;
    if (!digest_is_none(&now))
        json_object_set_new(extra, "from", json_string(digest_to_oci(&now, oci)));
    if (promotion->back)
        json_object_set_new(extra, "back", json_true());
    return channel_append(p->db, &addition, error);
}

/* What stands there already asks nobody: a night without news does not fail because of rules that came later. */
static bool promote_all(Promoting *p, GError **error)
{
    g_autoptr(GPtrArray) rules = NULL;
    StoreChannelRules asked;

    if ((p->promotion->expect && !check_expect(p, error)) || !find_moving(p, error))
        return false;
    if (p->moving->len == 0)
        return true;
    if (!rules_in_force(p->db, p->promotion->name, p->promotion->channel, &rules, error) ||
        !database_int(p->db, 0, &p->move, error, "SELECT seq FROM sqlite_sequence WHERE name = 'channel_log'", ""))
        return false;
    store_channel_rules_read(rules->len ? ((StoreChannelEntry *)rules->pdata[0])->rules : NULL, &asked);
    if (!check_rules(p, &asked, error))
        return false;
    p->move++;
    for (guint i = 0; i < p->moving->len; i++)
        if (!move_image(p, p->moving->pdata[i], error))
            return false;
    return true;
}

bool store_promote(Store *store, const StorePromotion *promotion, bool *ret_moved, GError **error)
{
    g_autoptr(GPtrArray) moving = g_ptr_array_new();
    Promoting p = {.store = store, .promotion = promotion, .moving = moving, .at = g_get_real_time() / G_USEC_PER_SEC};

    if (!store_channel_check(promotion->channel, error) || !store_name_check(promotion->name, error) || !store_why_check(&promotion->why, error) ||
        (promotion->expect && !check_expect_form(promotion->expect, error)) || !store_writable(store, error) ||
        !store_state_db(store, &p.db, error) || !database_begin(p.db, true, error))
        return false;
    if (!promote_all(&p, error)) {
        database_rollback(p.db);
        return false;
    }
    if (ret_moved)
        *ret_moved = moving->len > 0;
    return database_commit(p.db, error) && store_ledger_follow(store);
}

/* --- the way back --- */

/* Entries of earlier versions do not say it: those of one second that follow each other, one per kind. */
static bool same_move(const StoreChannelEntry *newer, const StoreChannelEntry *entry)
{
    const json_t *one = json_object_get(newer->extra, "move"), *other = json_object_get(entry->extra, "move");

    if (one || other)
        return one && other && json_equal((json_t *)one, (json_t *)other);
    return entry->at == newer->at && entry->number + 1 == newer->number && strcmp(entry->kind, newer->kind) != 0;
}

/* Of an entry that does not say it itself: where the kind's entry before pointed. */
static Digest came_from(GPtrArray *entries, guint index)
{
    const StoreChannelEntry *entry = entries->pdata[index];

    if (!digest_is_none(&entry->from))
        return entry->from;
    for (guint i = index + 1; i < entries->len; i++)
        if (strcmp(((StoreChannelEntry *)entries->pdata[i])->kind, entry->kind) == 0)
            return ((StoreChannelEntry *)entries->pdata[i])->image;
    return digest_none;
}

static bool add_previous(Store *store, GPtrArray *entries, guint index, GPtrArray *images, GError **error)
{
    const StoreChannelEntry *entry = entries->pdata[index];
    Digest from = came_from(entries, index);
    StoreImage *image = NULL;
    char oci[DIGEST_OCI_SIZE];
    Database *catalog;

    if (digest_is_none(&from))
        return fail_code(error, KILN_ERROR_NOT_FOUND, "channel '%s:%s' pointed at no %s before", entry->name, entry->channel,
                         channel_kind_name(entry->kind));
    if (!store_catalog(store, &catalog, error) || !image_by_id(catalog, &from, entry->name, &image, error))
        return false;
    if (!image)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "channel '%s:%s' pointed at %s before, which is no longer in the store", entry->name,
                         entry->channel, digest_to_oci(&from, oci));
    g_ptr_array_add(images, image);
    return image_check_bytes(image, error);
}

bool store_channel_previous(Store *store, const char *name, const char *kind, const char *channel, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) entries = NULL, images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
    g_autoptr(Query) query = NULL;
    Database *db;

    if (!store_name_check(name, error) || !store_channel_check(channel, error) || !store_state_db(store, &db, error))
        return false;
    query = database_query(db, error,
                           "SELECT " ENTRY_COLUMNS " FROM channel_log WHERE action = 'promote' AND name = ?1 AND channel = ?2"
                           " AND (?3 IS NULL OR kind = ?3) ORDER BY number DESC",
                           "ttt", name, channel, kind);
    if (!channel_entries(query, &entries, error))
        return false;
    if (entries->len == 0)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "'%s' was never promoted to channel '%s'", name, channel);
    for (guint i = 0; i < MIN(entries->len, KINDS) && (i == 0 || same_move(entries->pdata[i - 1], entries->pdata[i])); i++)
        if (!add_previous(store, entries, i, images, error))
            return false;
    *ret = g_steal_pointer(&images);
    return true;
}
