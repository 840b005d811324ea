/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records to state. Everything that changes a Group passes through fold(): what a controller appends is folded by the same code that
 * reads it back after a crash.
 */
#include "deploy/group-journal.h"

#include "base/error.h"

static void revision_facts_free(gpointer data)
{
    RevisionFacts *facts = data;

    group_spec_free(facts->spec);
    g_free(facts->image_name);
    g_free(facts->kind);
    g_free(facts->tests);
    g_free(facts->failed_why);
    g_free(facts);
}

static void instance_facts_free(gpointer data)
{
    InstanceFacts *facts = data;

    g_free(facts->address);
    g_free(facts);
}

/* --- look-ups --- */

RevisionFacts *group_revision_facts(const Group *group, uint32_t number)
{
    return number >= 1 && number <= group->revisions->len ? group->revisions->pdata[number - 1] : NULL;
}

static guint facts_hash(gconstpointer data)
{
    const InstanceFacts *facts = data;

    return facts->revision * 2654435761u ^ facts->slot * 40503u ^ facts->attempt;
}

static gboolean facts_equal(gconstpointer a, gconstpointer b)
{
    const InstanceFacts *x = a, *y = b;

    return x->revision == y->revision && x->slot == y->slot && x->attempt == y->attempt;
}

InstanceFacts *group_facts(const Group *group, uint32_t revision, uint32_t slot, uint32_t attempt)
{
    InstanceFacts key = {.revision = revision, .slot = slot, .attempt = attempt};
    InstanceFacts *facts = g_hash_table_lookup(group->instances, &key);

    if (!facts) {
        facts = g_new(InstanceFacts, 1);
        *facts = key;
        g_hash_table_add(group->instances, facts);
    }
    return facts;
}

const RevisionFacts *group_ruling(const Group *group)
{
    const GroupState *state = group->state;
    uint32_t number = state->target ? state->target : state->current ? state->current : state->next;

    return group_revision_facts(group, number);
}

static bool goes_back_plainly(const Group *group)
{
    const GroupState *state = group->state;
    const json_t *record = state->target ? group->rollout : state->next ? group->want : NULL;

    return json_is_true(json_object_get(record, "rollback"));
}

const GroupRules *group_rules(const Group *group)
{
    static const GroupRules none;
    const RevisionFacts *ruling = group_ruling(group);
    GroupRules *plain = &((Group *)group)->plain;

    if (!ruling)
        return &none;
    if (!goes_back_plainly(group))
        return &ruling->spec->rules;
    *plain = ruling->spec->rules;
    plain->gate = plain->analysis = plain->baseline = false;
    if (plain->strategy == STRATEGY_CANARY)
        plain->strategy = STRATEGY_ROLLING;
    return plain;
}

int group_host(Group *group, const char *driver, const char *host)
{
    g_autofree char *key = g_strconcat(driver, " ", host, NULL);
    GroupState *state = group->state;

    for (guint i = 0; i < group->hosts->len; i++)
        if (strcmp(group->hosts->pdata[i], key) == 0)
            return (int)i;
    g_ptr_array_add(group->hosts, g_steal_pointer(&key));
    state->hosts = g_renew(bool, state->hosts, group->hosts->len);
    state->hosts[group->hosts->len - 1] = false;
    state->host_count = group->hosts->len;
    return (int)group->hosts->len - 1;
}

void group_instance_name(const Group *group, uint32_t revision, uint32_t slot, uint32_t attempt, char ret[96])
{
    InstanceId id = {.revision = revision, .slot = slot, .attempt = attempt};

    (void)g_strlcpy(id.group, group->name, sizeof id.group);
    instance_name(&id, ret);
}

char *group_instance_address(const Group *group, const InstanceFacts *facts)
{
    const RevisionFacts *revision = group_revision_facts(group, facts->revision);

    return facts->address && revision ? g_strdup_printf("%s:%u", facts->address, revision->spec->shape.port) : NULL;
}

uint32_t group_color(const Group *group, uint32_t revision)
{
    const Revision *known = group_revision(group->state, revision);

    return known ? known->color : 0;
}

/* --- actions as records --- */

json_t *group_action_record(Group *group, const Action *action)
{
    json_t *record = json_pack("{s:s, s:s}", "do", action_kind_name(action->kind), "cause", cause_name(action->cause));

    if (action->revision)
        json_object_set_new(record, "revision", json_integer(action->revision));
    if (action_is_on_instance(action->kind)) {
        json_object_set_new(record, "slot", json_integer(action->slot));
        json_object_set_new(record, "attempt", json_integer(action->attempt));
        if (action->host >= 0 && (guint)action->host < group->hosts->len)
            json_object_set_new(record, "host", json_string(group->hosts->pdata[action->host]));
        if (action->place >= 0)
            json_object_set_new(record, "place", json_integer(action->place));
    }
    if (action->kind == ACTION_ROUTE)
        json_object_set_new(record, "weight", json_integer(action->weight));
    if (action->kind == ACTION_SWITCH || action->kind == ACTION_BEGIN)
        json_object_set_new(record, "color", json_integer(action->color));
    if (action->kind == ACTION_PHASE) {
        json_object_set_new(record, "phase", json_string(phase_name(action->phase)));
        json_object_set_new(record, "step", json_integer(action->step));
    }
    if (!action_is_decision(action->kind))
        json_object_set_new(record, "n", json_integer(++group->last_intent));
    return record;
}

char *group_action_line(const Group *group, const Action *action)
{
    char name[96];

    group_instance_name(group, action->revision, action->slot, action->attempt, name);
    if (action->kind == ACTION_ROUTE && action->weight && action->weight != WEIGHT_MAX)
        return g_strdup_printf("%s %s weight %u", action_kind_name(action->kind), name, action->weight);
    if (action_is_on_instance(action->kind))
        return g_strdup_printf("%s %s", action_kind_name(action->kind), name);
    if (action->kind == ACTION_SWITCH)
        return g_strdup_printf("switch to color %u", action->color);
    if (action->kind == ACTION_PHASE)
        return action->step ? g_strdup_printf("phase %s, step %u", phase_name(action->phase), action->step + 1)
                            : g_strdup_printf("phase %s", phase_name(action->phase));
    return g_strdup_printf("%s revision %u", action_kind_name(action->kind), action->revision);
}

static int64_t get_int(const json_t *record, const char *key, int64_t otherwise)
{
    const json_t *value = json_object_get(record, key);

    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

static const char *get_text(const json_t *record, const char *key)
{
    return json_string_value(json_object_get(record, key));
}

static bool action_from_record(Group *group, const json_t *record, Action *ret)
{
    const char *host = get_text(record, "host");
    const char *space = host ? strchr(host, ' ') : NULL;
    const char *cause = get_text(record, "cause"), *phase = get_text(record, "phase");
    Action action = {.host = -1, .place = (int32_t)get_int(record, "place", -1)};

    if (!action_kind_parse(get_text(record, "do"), &action.kind) || (cause && !cause_parse(cause, &action.cause)) ||
        (phase && !phase_parse(phase, &action.phase)))
        return false;
    action.revision = (uint32_t)get_int(record, "revision", 0);
    action.slot = (uint32_t)get_int(record, "slot", 0);
    action.attempt = (uint32_t)get_int(record, "attempt", 0);
    action.weight = (unsigned)get_int(record, "weight", 0);
    action.color = (uint32_t)get_int(record, "color", 0);
    action.step = (unsigned)get_int(record, "step", 0);
    if (space) {
        g_autofree char *driver = g_strndup(host, (gsize)(space - host));

        action.host = group_host(group, driver, space + 1);
    }
    *ret = action;
    return true;
}

/* --- folding --- */

static bool fold_revision(Group *group, const json_t *record, int64_t at, GError **error)
{
    RevisionFacts *facts = g_new0(RevisionFacts, 1);
    Revision revision = {.number = group->revisions->len + 1};
    const json_t *spec = json_object_get(record, "spec");
    const char *image = get_text(record, "image");
    json_t *host;
    size_t i;

    g_ptr_array_add(group->revisions, facts);
    facts->number = revision.number;
    facts->at = at;
    facts->kind = g_strdup(get_text(record, "kind"));
    facts->image_name = g_strdup(get_text(record, "name"));
    facts->tests = g_strdup(get_text(record, "tests"));
    if (get_int(record, "revision", 0) != facts->number || !image || !digest_parse(image, &facts->image) || !spec)
        return fail(error, "the journal of group '%s' has a damaged revision: run kiln audit", group->name);
    if (!group_spec_from_json(spec, &facts->spec, error))
        return fail_prefix(error, "revision %u of group '%s'", facts->number, group->name);
    json_digest(spec, &facts->spec_digest);
    json_array_foreach(json_object_get(record, "hosts"), i, host)
        if (json_is_string(host))
            (void)group_host(group, facts->spec->driver, json_string_value(host));
    g_array_append_val(group->state->revisions, revision);
    group->exists = true;
    group->destroyed = false;
    return true;
}

static Revision *revision_of(const Group *group, uint32_t number)
{
    return number >= 1 && number <= group->state->revisions->len ? &g_array_index(group->state->revisions, Revision, number - 1) : NULL;
}

/* A new promotion, or --retry: the image may be tried again. */
static void clear_failed(Group *group, uint32_t number)
{
    Revision *revision = revision_of(group, number);

    if (revision)
        revision->failed = false;
}

static void fold_want(Group *group, const json_t *record)
{
    uint32_t number = (uint32_t)get_int(record, "revision", 0);

    if (!group_revision_facts(group, number))
        return;
    clear_failed(group, number);
    if (number != group->state->target) /* it is on its way already */
        group->state->next = number;
    if (json_is_integer(json_object_get(record, "size")))
        group->state->size = (unsigned)get_int(record, "size", 0);
    json_decref(group->want);
    group->want = json_deep_copy(record);
}

static void fold_verb(Group *group, const json_t *record)
{
    GroupState *state = group->state;
    const char *verb = get_text(record, "verb");
    const json_t *arguments = json_object_get(record, "arguments");

    if (!verb)
        return;
    if (strcmp(verb, "scale") == 0)
        state->size = (unsigned)get_int(arguments, "size", state->size);
    else if (strcmp(verb, "pause") == 0)
        state->paused = true;
    else if (strcmp(verb, "continue") == 0) {
        if (!state->paused)
            state->passed_gate = true;
        state->paused = false;
    } else if (strcmp(verb, "abort") == 0 || strcmp(verb, "back") == 0)
        state->asked_back = true;
    else if (strcmp(verb, "destroy") == 0) {
        state->phase = PHASE_DESTROY;
        group->end_volumes = json_is_true(json_object_get(arguments, "volumes"));
    }
}

static void facts_of_intent(Group *group, const Action *action, const json_t *record, int64_t at)
{
    InstanceFacts *facts;

    if (!action_is_on_instance(action->kind))
        return;
    facts = group_facts(group, action->revision, action->slot, action->attempt);
    if (action->kind == ACTION_CREATE) {
        g_free(facts->address);
        facts->address = g_strdup(get_text(record, "address"));
        facts->created_at = at;
        facts->ended_at = 0;
    } else if (action->kind == ACTION_ENTER && !facts->entered_at)
        facts->entered_at = at;
    else if (action->kind == ACTION_DRAIN && !facts->drained_at)
        facts->drained_at = at;
    else if (action->kind == ACTION_LOST)
        facts->ended_at = at;
}

static void facts_of_outcome(Group *group, const Action *action, const json_t *record, int64_t at)
{
    InstanceFacts *facts;

    if (!action_is_on_instance(action->kind))
        return;
    facts = group_facts(group, action->revision, action->slot, action->attempt);
    if (action->kind == ACTION_ATTEST)
        facts->proofs = (unsigned)get_int(record, "proofs", 0);
    else if (action->kind == ACTION_ROUTE && !facts->routed_at)
        facts->routed_at = at;
    else if (action->kind == ACTION_DESTROY)
        facts->ended_at = at;
    if (get_text(record, "address")) {
        g_free(facts->address);
        facts->address = g_strdup(get_text(record, "address"));
    }
}

static void note_line(Group *group, const Action *action)
{
    g_autofree char *line = group_action_line(group, action);

    g_string_append_printf(group->executed, "%s\n", line);
}

static void fold_decision(Group *group, const Action *action, const json_t *record, int64_t at)
{
    RevisionFacts *facts = group_revision_facts(group, action->revision);

    if (action->kind == ACTION_BEGIN) {
        json_decref(group->rollout);
        group->rollout = json_deep_copy(record);
        g_string_truncate(group->executed, 0);
        group->begun_at = at;
        group->ended_at = 0;
        g_clear_pointer(&group->outcome, g_free);
    }
    if (action->kind == ACTION_PHASE || action->kind == ACTION_BEGIN || action->kind == ACTION_FAILED)
        group->phase_at = at;
    if (action->kind == ACTION_FAILED && facts) {
        facts->failed_at = at;
        g_free(facts->failed_why);
        facts->failed_why = g_strdup(get_text(record, "why") ? get_text(record, "why") : cause_name(action->cause));
    }
    if (action->kind == ACTION_STABLE || action->kind == ACTION_RETURNED || action->kind == ACTION_ENDED) {
        group->ended_at = at;
        g_free(group->outcome);
        group->outcome = action->kind == ACTION_STABLE   ? g_strdup("stable")
                         : action->kind == ACTION_ENDED ? g_strdup("destroyed")
                                                        : g_strdup("rolled back");
        group->destroyed = action->kind == ACTION_ENDED;
    }
}

static bool is_step(ActionKind kind)
{
    return kind != ACTION_LOST && kind != ACTION_BEGIN;
}

static void fold_action(Group *group, const json_t *record, int64_t at)
{
    Action action;
    int64_t n = get_int(record, "n", 0);

    if (!action_from_record(group, record, &action))
        return;
    group_intend(group_rules(group), group->state, &action);
    facts_of_intent(group, &action, record, at);
    if (action_is_decision(action.kind))
        fold_decision(group, &action, record, at);
    else {
        group->last_intent = MAX(group->last_intent, n);
        g_hash_table_insert(group->intents, GSIZE_TO_POINTER((gsize)n), g_memdup2(&action, sizeof action));
    }
    if (is_step(action.kind))
        note_line(group, &action);
}

static void fold_done(Group *group, const json_t *record, int64_t at)
{
    gpointer key = GSIZE_TO_POINTER((gsize)get_int(record, "n", 0));
    const Action *action = g_hash_table_lookup(group->intents, key);
    const char *proof = get_text(record, "proof");
    bool ok = json_is_true(json_object_get(record, "ok"));

    if (!action)
        return;
    group_outcome(group_rules(group), group->state, action, ok,
                  proof && strcmp(proof, "good") == 0 ? PROOF_GOOD : proof && strcmp(proof, "bad") == 0 ? PROOF_BAD : PROOF_NONE);
    if (ok)
        facts_of_outcome(group, action, record, at);
    if (ok && action->kind == ACTION_SWITCH)
        group->switched = (int32_t)action->color;
    g_hash_table_remove(group->intents, key);
}

static bool fold(Group *group, const json_t *record, int64_t at, GError **error)
{
    const char *what = get_text(record, "do");

    if (!what)
        return true;
    if (strcmp(what, "revision") == 0)
        return fold_revision(group, record, at, error);
    if (strcmp(what, "want") == 0)
        fold_want(group, record);
    else if (strcmp(what, "verb") == 0)
        fold_verb(group, record);
    else if (strcmp(what, "done") == 0)
        fold_done(group, record, at);
    else
        fold_action(group, record, at);
    return true;
}

bool group_imagine(Group *group, const json_t *record, GError **error)
{
    return fold(group, record, g_get_real_time(), error);
}

static bool refresh_until(Group *group, int64_t at, GError **error)
{
    g_autoptr(GPtrArray) records = NULL;

    if (!store_journal_read(group->store, group->name, group->last_number, &records, error))
        return false;
    for (guint i = 0; i < records->len; i++) {
        const StoreJournalRecord *record = records->pdata[i];

        if (record->at > at)
            break;
        group->exists = true;
        if (!fold(group, record->record, record->at, error))
            return false;
        group->last_number = record->number;
    }
    return true;
}

bool group_refresh(Group *group, GError **error)
{
    return refresh_until(group, G_MAXINT64, error);
}

static Group *group_new(Store *store, const char *name)
{
    Group *group = g_new0(Group, 1);

    group->store = store;
    group->name = g_strdup(name);
    group->state = group_state_new(0, 0, 0);
    group->revisions = g_ptr_array_new_with_free_func(revision_facts_free);
    group->instances = g_hash_table_new_full(facts_hash, facts_equal, instance_facts_free, NULL);
    group->hosts = g_ptr_array_new_with_free_func(g_free);
    group->intents = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL, g_free);
    group->executed = g_string_new(NULL);
    group->switched = -1;
    return group;
}

bool group_read_at(Store *store, const char *name, int64_t at, Group **ret, GError **error)
{
    g_autoptr(Group) group = group_new(store, name);

    if (!refresh_until(group, at, error))
        return false;
    *ret = g_steal_pointer(&group);
    return true;
}

bool group_read(Store *store, const char *name, Group **ret, GError **error)
{
    return group_read_at(store, name, G_MAXINT64, ret, error);
}

bool group_write(Store *store, const char *name, bool wait, Group **ret, GError **error)
{
    g_autoptr(Group) group = group_new(store, name);

    if (!store_journal_open(store, name, wait, &group->journal, error) || !group_refresh(group, error))
        return false;
    g_hash_table_remove_all(group->intents); /* what a dead controller left open is settled by looking at the world */
    *ret = g_steal_pointer(&group);
    return true;
}

void group_free(Group *group)
{
    if (!group)
        return;
    store_journal_close(group->journal);
    group_state_free(group->state);
    g_ptr_array_unref(group->revisions);
    g_hash_table_unref(group->instances);
    g_ptr_array_unref(group->hosts);
    g_hash_table_unref(group->intents);
    json_decref(group->want);
    json_decref(group->rollout);
    (void)g_string_free(group->executed, TRUE);
    g_free(group->outcome);
    g_free(group->name);
    g_free(group);
}

/* --- appending --- */

/* Images that may still be needed: of what runs, what is wanted, and the last stable ones to go back to. */
static void add_hold(GArray *holds, const Group *group, uint32_t number)
{
    const RevisionFacts *facts = group_revision_facts(group, number);

    if (facts)
        g_array_append_val(holds, facts->image);
}

enum { REVISIONS_KEPT = 2 };

GArray *group_holds(const Group *group)
{
    GArray *holds = g_array_new(FALSE, FALSE, sizeof(Digest));
    const GroupState *state = group->state;
    unsigned kept = 0;

    add_hold(holds, group, state->current);
    add_hold(holds, group, state->target);
    add_hold(holds, group, state->next);
    for (guint i = 0; i < state->instances->len; i++) {
        const Instance *instance = &g_array_index(state->instances, Instance, i);

        if (!instance->ended)
            add_hold(holds, group, instance->revision);
    }
    for (guint i = state->revisions->len; i-- > 0 && kept < REVISIONS_KEPT && !group->destroyed;)
        if (g_array_index(state->revisions, Revision, i).stable) {
            add_hold(holds, group, i + 1);
            kept++;
        }
    return holds;
}

static bool changes_holds(const json_t *record)
{
    static const char *const words[] = {"revision", "want", "begin", "stable", "returned", "ended", "failed", "phase", NULL};
    const char *what = get_text(record, "do");

    return what && g_strv_contains(words, what);
}

/* An image is held before the first record that names it can be read, so that no gc gets between. */
static void add_named(GArray *holds, const json_t *record)
{
    const char *image = get_text(record, "image");
    Digest digest;

    if (image && digest_parse(image, &digest))
        g_array_append_val(holds, digest);
}

/* What is held once @records are read: what was before, and what they name; NULL when they change nothing about it. */
static GArray *holds_with(const Group *group, const GPtrArray *records)
{
    GArray *holds = NULL;

    for (guint i = 0; i < records->len; i++)
        if (changes_holds(records->pdata[i]) && !holds)
            holds = group_holds(group);
    for (guint i = 0; holds && i < records->len; i++)
        add_named(holds, records->pdata[i]);
    return holds;
}

bool group_append(Group *group, GPtrArray *records, GError **error)
{
    g_autoptr(GArray) with = holds_with(group, records), after = NULL;

    if (!store_journal_append(group->journal, records, with, error) || !group_refresh(group, error))
        return false;
    if (!with)
        return true;
    after = group_holds(group);
    g_ptr_array_set_size(records, 0);
    return store_journal_append(group->journal, records, after, error);
}

bool group_append_one(Group *group, json_t *record, GError **error)
{
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);

    g_ptr_array_add(records, record);
    return group_append(group, records, error);
}

json_t *group_verb_record(const char *verb, json_t *arguments, const char *reason, const char *on_behalf_of)
{
    json_t *record = json_pack("{s:s, s:s}", "do", "verb", "verb", verb);

    if (arguments)
        json_object_set(record, "arguments", arguments);
    if (reason)
        json_object_set_new(record, "reason", json_string_nocheck(reason));
    if (on_behalf_of)
        json_object_set_new(record, "on_behalf_of", json_string_nocheck(on_behalf_of));
    return record;
}

bool group_check_exists(const Group *group, GError **error)
{
    return group->exists ||
           fail_code(error, KILN_ERROR_NOT_FOUND, "there is no group '%s'; `kiln deploy status` lists those there are", group->name);
}
