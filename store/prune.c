/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Judging sets and letting go of their bytes.
 *
 * Both are done under the write locks of state and catalog, as in store_remove_image(): nobody may begin to hold an image between our look and
 * its end. To let go is to take away rows of `reference`; what was referred to is found by gc. The image's row stays with the day.
 */
#include "store/prune.h"

#include "base/error.h"
#include "store/hold.h"
#include "store/image-private.h"
#include "store/ledger.h"
#include "store/serve-rows.h"
#include "store/store-private.h"

#define INPUT_MAX (1 << 20) /* a record's inputs are texts; what is larger is bytes like others */

/* One rule over the sets of a name, newest first: @format makes the name of the bucket that a moment falls into. */
typedef struct Rule {
    const char *format; /* NULL: every set is a bucket */
    const char *phrase;
    int64_t left;
    char *last; /* the bucket that was served last */
} Rule;

#define RULES 4

typedef struct Judge {
    GHashTable *holds;
    Rule rules[RULES];
    GPtrArray *verdicts;
} Judge;

void store_prune_verdict_free(StorePruneVerdict *verdict)
{
    if (!verdict)
        return;
    store_image_free(verdict->image);
    g_free(verdict->why);
    g_free(verdict);
}

/* --- rules --- */

static void start_rules(Judge *judge, const StoreRetention *rules)
{
    const Rule fresh[RULES] = {{NULL, "the last", rules->last, NULL},
                               {"%Y-%m-%d", "daily", rules->daily, NULL},
                               {"%G-W%V", "weekly", rules->weekly, NULL},
                               {"%Y-%m", "monthly", rules->monthly, NULL}};

    for (size_t i = 0; i < RULES; i++) {
        g_free(judge->rules[i].last);
        judge->rules[i] = fresh[i];
    }
}

/* A set's turn at a rule, newest first. True when the rule keeps it. */
static bool rule_takes(Rule *rule, int64_t created, char **ret_bucket)
{
    g_autoptr(GDateTime) when = g_date_time_new_from_unix_local(created);
    g_autofree char *bucket = when && rule->format ? g_date_time_format(when, rule->format) : g_strdup("");

    if (rule->left <= 0 || (rule->format && g_strcmp0(bucket, rule->last) == 0))
        return false;
    rule->left--;
    g_free(rule->last);
    rule->last = g_strdup(bucket);
    *ret_bucket = g_steal_pointer(&bucket);
    return true;
}

/* Every rule is asked, because each counts for itself; the first that says yes gives the reason. */
static char *kept_by_rule(Judge *judge, const StoreImage *image, const StoreRetention *rules)
{
    char *why = NULL;

    for (size_t i = 0; i < RULES; i++) {
        Rule *rule = &judge->rules[i];
        g_autofree char *bucket = NULL;

        if (!rule_takes(rule, image->created, &bucket) || why)
            continue;
        why = rule->format ? g_strdup_printf("newest of %s (--keep-%s)", bucket, rule->phrase)
                           : g_strdup_printf("one of the last %" G_GINT64_FORMAT " (--keep-last)", rules->last);
    }
    return why;
}

/* --- holds --- */

static char *held_by(const Judge *judge, const StoreImage *image)
{
    const GPtrArray *list = g_hash_table_lookup(judge->holds, &image->id);
    const Hold *hold = list ? list->pdata[0] : NULL;

    if (!hold)
        return NULL;
    if (hold->kind == HOLD_NAME && g_strcmp0(hold->name, image->name) == 0)
        return g_strdup("the newest of its name");
    return g_strdup_printf("held by %s", hold->phrase);
}

/* --- sets --- */

static void add_verdict(Judge *judge, const StoreImage *image, const char *why)
{
    StorePruneVerdict *verdict = g_new0(StorePruneVerdict, 1);

    verdict->image = (StoreImage *)image;
    verdict->stays = why != NULL;
    verdict->why = g_strdup(why ? why : "no rule keeps it and nothing holds it");
    g_ptr_array_add(judge->verdicts, verdict);
}

/*
 * Images [first, end) of @images are one set. They move into verdicts. The newest set stays by itself: while it is being published the name
 * does not point at it yet.
 */
static void judge_set(Judge *judge, GPtrArray *images, guint first, guint end, bool newest, const StoreRetention *rules)
{
    g_autofree char *why = kept_by_rule(judge, images->pdata[first], rules);

    if (!why && newest)
        why = g_strdup("the newest of its name");
    for (guint i = first; !why && i < end; i++)
        why = held_by(judge, images->pdata[i]);
    for (guint i = first; i < end; i++)
        add_verdict(judge, g_steal_pointer(&images->pdata[i]), why);
}

static void judge_all(Judge *judge, GPtrArray *images, const StoreRetention *rules)
{
    g_autofree char *name = NULL;
    bool newest;
    guint end;

    for (guint first = 0; first < images->len; first = end) {
        const StoreImage *image = images->pdata[first];

        for (end = first + 1; end < images->len && ((StoreImage *)images->pdata[end])->set == image->set; end++)
            ;
        newest = g_strcmp0(name, image->name) != 0;
        g_free(name);
        name = g_strdup(image->name);
        if (newest)
            start_rules(judge, rules);
        judge_set(judge, images, first, end, newest, rules);
    }
}

/* --- letting go --- */

static bool let_go(Database *db, const StoreImage *image, int64_t now, GError **error)
{
    static const char images[] = "DELETE FROM reference WHERE role NOT IN ('config', 'manifest') AND image IN"
                                 " (SELECT number FROM image WHERE bake = ?1 AND kind = ?2)",
                      inputs[] = "DELETE FROM reference WHERE role = 'input' AND image = 0 AND bake = ?1 AND digest IN"
                                 " (SELECT digest FROM blob WHERE stored > ?2)";

    return database_run(db, error, images, "it", image->set, image->kind) && serve_manifest_forget(db, image->name, &image->manifest, error) &&
           database_run(db, error, inputs, "ii", image->set, (int64_t)INPUT_MAX) &&
           database_run(db, error, "UPDATE image SET bytes_gone = ?1 WHERE bake = ?2 AND kind = ?3", "iit", now, image->set, image->kind);
}

static bool let_all_go(Database *db, GPtrArray *verdicts, GError **error)
{
    int64_t now = g_get_real_time() / G_USEC_PER_SEC;

    for (guint i = 0; i < verdicts->len; i++) {
        const StorePruneVerdict *verdict = verdicts->pdata[i];

        if (!verdict->stays && !let_go(db, verdict->image, now, error))
            return false;
    }
    return true;
}

/* --- all of it --- */

static bool load_images(Database *db, const char *name, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) images = NULL;
    g_autoptr(Query) query = database_query(db, error,
                                            "SELECT " IMAGE_COLUMNS " FROM image WHERE bytes_gone = 0 AND (?1 IS NULL OR name = ?1)"
                                            " ORDER BY name, bake DESC, kind",
                                            "t", name);
    int64_t known = 1;

    if (!images_from_query(db, query, &images, error) ||
        (name && !database_int(db, 0, &known, error, "SELECT count(*) FROM image WHERE name = ?1", "t", name)))
        return false;
    if (!known)
        return fail_code(error, KILN_ERROR_NOT_FOUND, "there is no image '%s' in this store", name);
    *ret = g_steal_pointer(&images);
    return true;
}

/* With both write locks. */
static bool prune(Store *store, Database *catalog, const char *name, const StoreRetention *rules, bool dry_run, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) images = NULL, verdicts = g_ptr_array_new_with_free_func((GDestroyNotify)store_prune_verdict_free);
    g_autoptr(GHashTable) holds = NULL;
    Judge judge = {.verdicts = verdicts};

    if (!load_images(catalog, name, &images, error) || !holds_load(store, &holds, error))
        return false;
    judge.holds = holds;
    judge_all(&judge, images, rules);
    for (size_t i = 0; i < RULES; i++)
        g_free(judge.rules[i].last);
    if (!dry_run && !let_all_go(catalog, verdicts, error))
        return false;
    *ret = g_steal_pointer(&verdicts);
    return true;
}

/* A rehearsal needs no lock: it only reads. */
static bool rehearse(Store *store, const char *name, const StoreRetention *rules, GPtrArray **ret, GError **error)
{
    Database *catalog;

    return store_catalog(store, &catalog, error) && prune(store, catalog, name, rules, true, ret, error);
}

bool store_prune(Store *store, const char *name, const StoreRetention *rules, bool dry_run, GPtrArray **ret, GError **error)
{
    Database *state, *catalog;
    bool ok;

    if (dry_run)
        return rehearse(store, name, rules, ret, error);
    if (!store_writable(store, error) || !store_state_db(store, &state, error) || !store_catalog(store, &catalog, error) ||
        !database_begin(state, true, error))
        return false;
    ok = database_begin(catalog, true, error);
    if (ok && !prune(store, catalog, name, rules, false, ret, error)) {
        database_rollback(catalog);
        ok = false;
    }
    ok = ok && database_commit(catalog, error);
    /* Nothing was written there: the lock was all we wanted of it. */
    database_rollback(state);
    return ok && store_ledger_follow(store);
}
