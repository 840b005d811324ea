/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Status, history and drift: readers only, without the group's lock.
 */
#include "deploy/report.h"

#include "base/error.h"
#include "deploy/drift-ignore.h"
#include "deploy/plan.h"

static bool read_group(Store *store, const char *name, int64_t at, Group **ret, GError **error)
{
    g_autoptr(Group) group = NULL;

    if (!group_read_at(store, name, at, &group, error) || !group_check_exists(group, error))
        return false;
    *ret = g_steal_pointer(&group);
    return true;
}

static void set_text(json_t *object, const char *key, const char *text)
{
    if (text)
        json_object_set_new(object, key, json_string_nocheck(text));
}

static double seconds(int64_t microseconds)
{
    return (double)microseconds / G_USEC_PER_SEC;
}

/* --- one line --- */

/* Where the reference of the group file points today. */
static void add_channel(Store *store, const Group *group, const RevisionFacts *revision, json_t *object)
{
    g_autoptr(StoreImage) image = NULL;
    const char *colon = strrchr(revision->spec->image_ref, ':');

    if (!colon || g_str_has_prefix(revision->spec->image_ref, "sha256:"))
        return;
    set_text(object, "channel", revision->spec->image_ref);
    if (!store_resolve(store, revision->spec->image_ref, revision->kind, &image, NULL))
        return;
    json_object_set_new(object, "behind", json_boolean(!digest_equal(&image->id, &revision->image)));
    json_set_digest(object, "channel_image", &image->id);
    for (guint i = 0; i < group->revisions->len; i++) {
        const RevisionFacts *other = group->revisions->pdata[i];

        if (digest_equal(&other->image, &image->id) && group_revision(group->state, other->number)->failed)
            set_text(object, "behind_why", other->failed_why);
    }
}

static json_t *summary(Store *store, const Group *group)
{
    const GroupState *state = group->state;
    const RevisionFacts *current = group_revision_facts(group, state->current ? state->current : state->target);
    json_t *object = json_pack("{s:s, s:I, s:I, s:I, s:s, s:b, s:b}", "group", group->name, "size", (json_int_t)state->size, "revision",
                               (json_int_t)state->current, "target", (json_int_t)state->target, "phase",
                               group->destroyed ? "destroyed" : phase_name(state->phase), "paused", state->paused, "destroyed", group->destroyed);

    if (current) {
        json_set_digest(object, "image", &current->image);
        set_text(object, "name", current->image_name);
        set_text(object, "kind", current->kind);
        json_object_set_new(object, "since", json_real(seconds(group->ended_at ? group->ended_at : group->begun_at)));
        add_channel(store, group, current, object);
    }
    set_text(object, "outcome", group->outcome ? group->outcome : state->target ? "running" : NULL);
    return object;
}

bool report_group(Store *store, const char *name, json_t **ret, GError **error)
{
    g_autoptr(Group) group = NULL;

    if (!read_group(store, name, G_MAXINT64, &group, error))
        return false;
    *ret = summary(store, group);
    return true;
}

/* --- status --- */

static const char *life_name(Life life)
{
    static const char *const names[] = {"absent", "starting", "running", "dead", "unknown"};

    return names[life];
}

static const char *route_name(Route route)
{
    static const char *const names[] = {"out", "drained", "in", "unknown"};

    return names[route];
}

static json_t *proofs_json(const Instance *row, unsigned flags)
{
    static const char *const names[] = {"metadata", "chain", "digest", "guest"};
    json_t *list = json_array();

    if (row->proof == PROOF_BAD)
        json_array_append_new(list, json_string("wrong"));
    for (size_t i = 0; i < G_N_ELEMENTS(names) && row->proof == PROOF_GOOD; i++)
        if (flags & (1u << i))
            json_array_append_new(list, json_string(names[i]));
    return list;
}

static json_t *row_json(World *world, const GroupRules *rules, const Instance *row)
{
    Group *group = world->group;
    const InstanceFacts *facts = group_facts(group, row->revision, row->slot, row->attempt);
    char name[96];
    json_t *object;

    group_instance_name(group, row->revision, row->slot, row->attempt, name);
    object = json_pack("{s:s, s:I, s:I, s:I, s:s, s:s, s:b, s:b, s:o, s:I}", "instance", name, "revision", (json_int_t)row->revision, "slot",
                       (json_int_t)row->slot, "attempt", (json_int_t)row->attempt, "life", life_name(row->life), "route", route_name(row->route), "up",
                       row->up, "serving", instance_serves(rules, group->state, row), "proven", proofs_json(row, facts->proofs), "weight",
                       (json_int_t)(row->route == ROUTE_IN ? row->weight : 0));
    set_text(object, "address", facts->address);
    if (row->host >= 0 && (guint)row->host < group->hosts->len)
        set_text(object, "host", strchr(group->hosts->pdata[row->host], ' ') + 1);
    if (facts->created_at)
        json_object_set_new(object, "created", json_real(seconds(facts->created_at)));
    if (row->place >= 0)
        json_object_set_new(object, "place", json_integer(row->place));
    return object;
}

static json_t *rows_json(World *world, const GroupRules *rules)
{
    const GroupState *state = world->group->state;
    json_t *list = json_array();

    for (guint i = 0; i < state->instances->len; i++) {
        const Instance *row = &g_array_index(state->instances, Instance, i);

        if (!row->ended)
            json_array_append_new(list, row_json(world, rules, row));
    }
    return list;
}

static json_t *findings_json(const World *world)
{
    json_t *list = json_array();

    for (guint i = 0; i < world->findings->len; i++) {
        const Finding *finding = world->findings->pdata[i];

        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "subject", finding->subject, "kind", finding->kind, "text", finding->text));
    }
    return list;
}

/* What the transition function waits for, seen from outside. */
static void add_wait(const Group *group, const GroupRules *rules, json_t *object)
{
    g_autoptr(GArray) actions = g_array_new(FALSE, TRUE, sizeof(Action));
    Wait wait;

    group_next(rules, group->state, actions, &wait);
    set_text(object, "waits_for", actions->len > 0 ? "somebody to carry on (`kiln deploy resume`, or `kiln deploy watch`)"
                                  : wait == WAIT_NOTHING ? NULL : wait_sentence(wait));
}

bool report_status(Store *store, const char *name, json_t **ret, GError **error)
{
    g_autoptr(Group) group = NULL;
    g_autoptr(World) world = NULL;
    const RevisionFacts *ruling;
    int64_t holder = 0;
    json_t *object;

    if (!read_group(store, name, G_MAXINT64, &group, error) || !world_open(group, false, &world, error) || !world_observe(world, error) ||
        !store_journal_holder(store, name, &holder, error))
        return false;
    ruling = group_ruling(group);
    object = summary(store, group);
    if (ruling && !group->destroyed) {
        const GroupRules *rules = group_rules(group);

        json_object_set_new(object, "instances", rows_json(world, rules));
        json_object_set_new(object, "serving", json_integer(group_serving(rules, group->state)));
        json_object_set_new(object, "existing", json_integer(group_existing(group->state)));
        json_object_set_new(object, "floor", json_integer(group_floor(rules, group->state)));
        json_object_set_new(object, "ceiling", json_integer(group_ceiling(rules, group->state)));
        json_object_set_new(object, "step", json_integer(group->state->step));
        json_object_set_new(object, "steps", json_integer(rules->strategy == STRATEGY_CANARY ? rules->step_count : 0));
        json_object_set_new(object, "rollback_seconds", json_real(plan_rollback_seconds(group, ruling->spec)));
        if (holder)
            json_object_set_new(object, "controller", json_integer(holder));
        else
            add_wait(group, rules, object);
    }
    json_object_set_new(object, "findings", findings_json(world));
    *ret = object;
    return true;
}

/* --- history --- */

static bool is_told(const char *what)
{
    static const char *const words[] = {"revision", "begin", "phase", "stable", "failed", "returned", "ended", "verb", "verdict", NULL};

    return what && g_strv_contains(words, what);
}

static json_t *event_json(const StoreJournalRecord *record)
{
    json_t *event = json_deep_copy(record->record);

    json_object_del(event, "spec");
    json_object_set_new(event, "number", json_integer(record->number));
    json_object_set_new(event, "at", json_real(seconds(record->at)));
    json_object_set_new(event, "epoch", json_integer(record->epoch));
    set_text(event, "who", record->who);
    json_set_digest(event, "hash", &record->hash);
    return event;
}

static json_t *existed_json(const Group *group)
{
    json_t *list = json_array();

    for (guint i = 0; i < group->state->instances->len; i++) {
        const Instance *row = &g_array_index(group->state->instances, Instance, i);
        const RevisionFacts *revision = group_revision_facts(group, row->revision);
        char name[96], image[DIGEST_OCI_SIZE];

        if (row->ended || !row->created || !revision)
            continue;
        group_instance_name(group, row->revision, row->slot, row->attempt, name);
        json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "instance", name, "image", digest_to_oci(&revision->image, image), "served",
                                              row->served && !row->drained));
    }
    return list;
}

bool report_history(Store *store, const char *name, int64_t at, json_t **ret, GError **error)
{
    g_autoptr(Group) group = NULL;
    g_autoptr(GPtrArray) records = NULL;
    json_t *events = json_array();

    *ret = NULL;
    if (!read_group(store, name, at ? at : G_MAXINT64, &group, error) || !store_journal_read(store, name, 0, &records, error)) {
        json_decref(events);
        return false;
    }
    for (guint i = 0; i < records->len; i++) {
        const StoreJournalRecord *record = records->pdata[i];

        if ((!at || record->at <= at) && is_told(json_string_value(json_object_get(record->record, "do"))))
            json_array_append_new(events, event_json(record));
    }
    *ret = summary(store, group);
    json_object_set_new(*ret, "events", events);
    if (at)
        json_object_set_new(*ret, "existed", existed_json(group));
    return true;
}

/* --- drift --- */

static void add_changes(World *world, const RevisionFacts *revision, const DriverInstance *seen, json_t *drift)
{
    Driver *driver = world_driver(world, revision);
    g_autoptr(GPtrArray) changes = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;
    char id[DIGEST_OCI_SIZE];

    if (!driver->ops->changed_files || seen->life != LIFE_RUNNING)
        return;
    if (!store_resolve(world->group->store, digest_to_oci(&revision->image, id), revision->kind, &image, &error) ||
        !driver->ops->changed_files(driver, seen, image, &changes, &error)) {
        json_array_append_new(drift, json_pack("{s:s, s:s, s:s}", "subject", seen->name, "kind", "unreadable", "text", error->message));
        return;
    }
    for (guint i = 0; i < changes->len; i++) {
        const DriftEntry *entry = changes->pdata[i];

        if (!drift_ignored(revision->spec, entry->path))
            json_array_append_new(drift, json_pack("{s:s, s:s, s:s, s:s}", "subject", seen->name, "kind", "disk", "path", entry->path, "text", entry->what));
    }
}

bool report_drift(Store *store, const char *name, bool disks, json_t **ret, bool *ret_found, GError **error)
{
    g_autoptr(Group) group = NULL;
    g_autoptr(World) world = NULL;
    json_t *drift;

    if (!read_group(store, name, G_MAXINT64, &group, error) || !world_open(group, false, &world, error) || !world_observe(world, error))
        return false;
    drift = findings_json(world);
    for (guint i = 0; disks && i < world->seen->len; i++) {
        const DriverInstance *seen = world->seen->pdata[i];
        const RevisionFacts *revision = seen->known ? group_revision_facts(group, seen->id.revision) : NULL;

        if (revision)
            add_changes(world, revision, seen, drift);
    }
    *ret_found = json_array_size(drift) > 0;
    *ret = json_pack("{s:s, s:o}", "group", name, "drift", drift);
    return true;
}
