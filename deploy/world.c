/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking: every host, every balancer, every health check, once; then each row of the state gets what was seen of it.
 */
#include "deploy/world.h"

#include "base/error.h"
#include "base/log.h"
#include "deploy/members.h"

#include <math.h>

enum { PLACES_SPARE = 2, COOL_MAX = 60 /* seconds between attempts at most */ };

typedef struct OpenDriver {
    char *key;
    Driver *driver;
    GArray *hosts; /* of int: index in the group's table, per host of the driver */
} OpenDriver;

static void open_driver_free(gpointer data)
{
    OpenDriver *open = data;

    if (open->driver)
        open->driver->ops->close(open->driver);
    g_array_unref(open->hosts);
    g_free(open->key);
    g_free(open);
}

static void finding_free(gpointer data)
{
    Finding *finding = data;

    g_free(finding->subject);
    g_free(finding->kind);
    g_free(finding->text);
    g_free(finding);
}

static void find(World *world, const char *subject, const char *kind, char *text /* taken */)
{
    Finding *finding = g_new(Finding, 1);

    *finding = (Finding){.subject = g_strdup(subject), .kind = g_strdup(kind), .text = text};
    g_ptr_array_add(world->findings, finding);
}

/* --- opening --- */

static char *driver_key(const GroupSpec *spec)
{
    g_autofree char *text = json_canonical(spec->driver_arguments);

    return g_strconcat(spec->driver, " ", text, NULL);
}

static OpenDriver *find_key(const World *world, const char *key)
{
    for (guint i = 0; i < world->drivers->len; i++) {
        OpenDriver *open = world->drivers->pdata[i];

        if (strcmp(open->key, key) == 0)
            return open;
    }
    return NULL;
}

static OpenDriver *find_open(const World *world, const RevisionFacts *revision)
{
    return g_hash_table_lookup(world->driver_of, GUINT_TO_POINTER(revision->number));
}

static bool open_new_driver(World *world, const GroupSpec *spec, const char *key, OpenDriver **ret, GError **error)
{
    DriverConfig config = {.store = world->group->store, .group = world->group->name, .arguments = spec->driver_arguments, .shape = &spec->shape};
    const DriverOps *ops = driver_find(spec->driver, NULL);
    OpenDriver *open;

    if (!ops)
        return fail(error, "this kiln has no driver '%s', which group '%s' was deployed with", spec->driver, world->group->name);
    open = g_new0(OpenDriver, 1);
    open->key = g_strdup(key);
    open->hosts = g_array_new(FALSE, FALSE, sizeof(int));
    g_ptr_array_add(world->drivers, open);
    if (!ops->open(&config, &open->driver, error))
        return fail_prefix(error, "driver '%s' of group '%s'", spec->driver, world->group->name);
    for (unsigned i = 0; i < ops->host_count(open->driver); i++) {
        int host = group_host(world->group, spec->driver, ops->host_name(open->driver, i));

        g_array_append_val(open->hosts, host);
    }
    *ret = open;
    return true;
}

/* Revisions whose driver blocks are equal share one driver. */
static bool open_driver(World *world, const RevisionFacts *revision, GError **error)
{
    g_autofree char *key = NULL;
    OpenDriver *open;

    if (find_open(world, revision))
        return true;
    key = driver_key(revision->spec);
    open = find_key(world, key);
    if (!open && !open_new_driver(world, revision->spec, key, &open, error))
        return false;
    g_hash_table_insert(world->driver_of, GUINT_TO_POINTER(revision->number), open);
    return true;
}

unsigned world_places(const GroupSpec *spec, unsigned size)
{
    unsigned surge = spec->rules.strategy == STRATEGY_BLUEGREEN ? 0 : spec->rules.max_surge;

    return size + surge + PLACES_SPARE;
}

void world_balancer_config(const GroupSpec *spec, unsigned size, BalancerConfig *ret)
{
    *ret = (BalancerConfig){.group = spec->name,
                            .arguments = spec->balancer_arguments,
                            .strategy = spec->rules.strategy,
                            .places = world_places(spec, size),
                            .port = spec->shape.port,
                            .health_http = spec->health_http,
                            .health_interval = spec->health_interval,
                            .rise = spec->rise,
                            .fall = spec->fall,
                            .sticky = spec->sticky};
}

static bool open_balancer(World *world, const GroupSpec *spec, GError **error)
{
    g_autofree char *arguments = spec->balancer_arguments ? json_canonical(spec->balancer_arguments) : g_strdup("");
    g_autofree char *key = g_strdup_printf("%s %d %s", spec->balancer, (int)spec->rules.strategy, arguments);
    const BalancerOps *ops = balancer_find(spec->balancer, NULL);
    BalancerConfig config;

    if (world->balancer_key && strcmp(world->balancer_key, key) == 0)
        return true;
    if (!ops)
        return fail(error, "this kiln has no balancer '%s', which group '%s' was deployed with", spec->balancer, world->group->name);
    if (world->balancer)
        world->balancer->ops->close(world->balancer);
    world->balancer = NULL;
    world_balancer_config(spec, world->group->state->size, &config);
    if (!ops->open(&config, &world->balancer, error))
        return fail_prefix(error, "balancer '%s' of group '%s'", spec->balancer, world->group->name);
    g_free(world->balancer_key);
    world->balancer_key = g_steal_pointer(&key);
    return true;
}

static bool has_checks(const GroupSpec *spec)
{
    return spec->health_http || spec->health_tcp;
}

static void open_health(World *world, const RevisionFacts *revision)
{
    gpointer key = GUINT_TO_POINTER(revision->number);
    HealthSpec spec = {.http = revision->spec->health_http,
                       .tcp = revision->spec->health_tcp,
                       .port = revision->spec->health_port,
                       .interval = revision->spec->health_interval,
                       .rise = revision->spec->rise,
                       .fall = revision->spec->fall};

    if (world->watching && has_checks(revision->spec) && !g_hash_table_contains(world->health, key))
        g_hash_table_insert(world->health, key, health_new(&spec));
}

/* Of revisions that still matter: those with instances, those that rule or will, and the last one: a destroyed group's. */
static bool matters(const Group *group, uint32_t revision)
{
    const GroupState *state = group->state;

    if (revision == state->current || revision == state->target || revision == state->next || revision == group->revisions->len)
        return true;
    for (guint i = 0; i < state->instances->len; i++) {
        const Instance *instance = &g_array_index(state->instances, Instance, i);

        if (instance->revision == revision && !instance->ended)
            return true;
    }
    return false;
}

bool world_extend(World *world, GError **error)
{
    const RevisionFacts *ruling = group_ruling(world->group);

    for (guint i = 0; i < world->group->revisions->len; i++) {
        const RevisionFacts *revision = world->group->revisions->pdata[i];

        if (!matters(world->group, revision->number))
            continue;
        if (!open_driver(world, revision, error))
            return false;
        open_health(world, revision);
    }
    return !ruling || open_balancer(world, ruling->spec, error);
}

bool world_use_balancer(World *world, const RevisionFacts *revision, GError **error)
{
    return open_balancer(world, revision->spec, error);
}

static void free_health(gpointer monitor)
{
    health_free(monitor);
}

bool world_open(Group *group, bool watching, World **ret, GError **error)
{
    g_autoptr(World) world = g_new0(World, 1);

    world->group = group;
    world->watching = watching;
    world->drivers = g_ptr_array_new_with_free_func(open_driver_free);
    world->driver_of = g_hash_table_new(g_direct_hash, g_direct_equal);
    world->health = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL, free_health);
    world->findings = g_ptr_array_new_with_free_func(finding_free);
    world->seen_at = g_hash_table_new(g_str_hash, g_str_equal);
    world->entries = g_hash_table_new(g_direct_hash, g_direct_equal);
    world->silent = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL, g_free);
    world->view.color = -1;
    if (!world_extend(world, error))
        return false;
    *ret = g_steal_pointer(&world);
    return true;
}

void world_close(World *world)
{
    if (!world)
        return;
    g_hash_table_unref(world->health); /* its threads go first: they use nothing of the others, but may be slow */
    g_hash_table_unref(world->driver_of);
    g_ptr_array_unref(world->drivers);
    if (world->balancer)
        world->balancer->ops->close(world->balancer);
    balancer_view_clear(&world->view);
    g_hash_table_unref(world->seen_at);
    g_hash_table_unref(world->entries);
    g_clear_pointer(&world->seen, g_ptr_array_unref);
    g_hash_table_unref(world->silent);
    g_ptr_array_unref(world->findings);
    g_free(world->balancer_key);
    g_free(world);
}

Driver *world_driver(World *world, const RevisionFacts *revision)
{
    const OpenDriver *open = find_open(world, revision);

    return open ? open->driver : NULL;
}

int world_driver_host(World *world, const RevisionFacts *revision, int host)
{
    const OpenDriver *open = find_open(world, revision);

    for (guint i = 0; open && i < open->hosts->len; i++)
        if (g_array_index(open->hosts, int, i) == host)
            return (int)i;
    return -1;
}

bool world_end_volumes(World *world, GError **error)
{
    for (guint i = 0; i < world->drivers->len; i++) {
        Driver *driver = ((OpenDriver *)world->drivers->pdata[i])->driver;

        if (driver->ops->destroy_volumes && !driver->ops->destroy_volumes(driver, error))
            return false;
    }
    return true;
}

void world_forget_images(World *world, const GArray *keep)
{
    for (guint i = 0; i < world->drivers->len; i++) {
        Driver *driver = ((OpenDriver *)world->drivers->pdata[i])->driver;
        g_autoptr(GError) error = NULL;

        if (driver->ops->forget && !driver->ops->forget(driver, keep, &error))
            log_warning("%s: images that are no longer needed stay on the hosts: %s", world->group->name, error->message);
    }
}

const char *world_firewall(World *world, const RevisionFacts *revision)
{
    Driver *driver = world_driver(world, revision);

    if (!revision->spec->shape.allow || !driver->ops->firewall)
        return NULL;
    return driver->ops->firewall(driver, &revision->spec->shape);
}

/* --- hosts --- */

static void note_silence(World *world, int host, bool answers)
{
    gpointer key = GINT_TO_POINTER(host);

    if (answers)
        g_hash_table_remove(world->silent, key);
    else if (!g_hash_table_contains(world->silent, key))
        g_hash_table_insert(world->silent, key, g_memdup2(&world->now, sizeof world->now));
}

static bool is_silent(const World *world, int host)
{
    return g_hash_table_contains(world->silent, GINT_TO_POINTER(host));
}

static bool is_given_up(const World *world, int host, double after)
{
    const int64_t *since = g_hash_table_lookup(world->silent, GINT_TO_POINTER(host));

    return since && after > 0 && (double)(world->now - *since) >= after * G_USEC_PER_SEC;
}

static void take_seen(World *world, GPtrArray *seen)
{
    for (guint i = 0; i < seen->len; i++) {
        DriverInstance *instance = seen->pdata[i];

        g_ptr_array_add(world->seen, instance);
        if (instance->known && !g_hash_table_contains(world->seen_at, instance->name))
            g_hash_table_insert(world->seen_at, instance->name, instance);
        else if (!instance->known)
            find(world, instance->name, "unknown", g_strdup_printf("'%s' carries the mark of group '%s', and kiln did not make it so", instance->name, world->group->name));
    }
    g_ptr_array_set_free_func(seen, NULL); /* they are ours now */
}

/* An instance that the journal has no row for, or only an ended one. */
static void adopt(World *world, const OpenDriver *open, const DriverInstance *seen)
{
    GroupState *state = world->group->state;
    Instance *row = group_instance(state, seen->id.revision, seen->id.slot, seen->id.attempt);

    if (row && !row->ended)
        return;
    find(world, seen->name, "unknown", g_strdup_printf("'%s' lives, and by the journal it should not", seen->name));
    if (!row)
        row = group_add_instance(state, seen->id.revision, seen->id.slot, seen->id.attempt);
    row->host = seen->host >= 0 && (guint)seen->host < open->hosts->len ? g_array_index(open->hosts, int, seen->host) : -1;
    row->ended = false;
    row->created = row->drained = true; /* it never gets traffic again */
    row->life = seen->life;
}

static bool observe_driver(World *world, const OpenDriver *open, GError **error)
{
    const DriverOps *ops = open->driver->ops;
    g_autofree bool *answers = g_new0(bool, open->hosts->len + 1);
    g_autoptr(GPtrArray) seen = NULL;

    if (!ops->observe(open->driver, &seen, answers, error))
        return fail_prefix(error, "driver '%s' of group '%s'", ops->name, world->group->name);
    for (guint i = 0; i < open->hosts->len; i++) {
        int host = g_array_index(open->hosts, int, i);

        note_silence(world, host, answers[i]);
        world->group->state->hosts[host] = answers[i];
        if (!answers[i])
            find(world, world->group->hosts->pdata[host], "host", g_strdup_printf("host '%s' does not answer", ops->host_name(open->driver, i)));
    }
    take_seen(world, seen);
    for (guint i = 0; i < seen->len; i++) {
        const DriverInstance *instance = seen->pdata[i];

        if (instance->known && strcmp(instance->id.group, world->group->name) == 0)
            adopt(world, open, instance);
    }
    return true;
}

const DriverInstance *world_seen(World *world, uint32_t revision, uint32_t slot, uint32_t attempt)
{
    char name[96];

    group_instance_name(world->group, revision, slot, attempt, name);
    return g_hash_table_lookup(world->seen_at, name);
}

/* --- merging --- */

static bool is_after(const World *world, int64_t since, double seconds)
{
    return since > 0 && (double)(world->now - since) >= seconds * G_USEC_PER_SEC;
}

static double cool_seconds(const Instance *row)
{
    return MIN((double)COOL_MAX, ldexp(1, (int)MIN(row->attempt, 10u) - 1));
}

static void merge_life(World *world, Instance *row, const DriverInstance *seen, const GroupSpec *spec)
{
    if (seen)
        row->life = seen->life;
    else if (row->host >= 0 && is_silent(world, row->host) && !is_given_up(world, row->host, spec->host_lost_after))
        row->life = LIFE_UNKNOWN;
    else
        row->life = LIFE_NONE;
    if (seen)
        row->created = true;
}

/* An identity that does not fit what the journal says of the revision is no identity. */
static void merge_identity(World *world, Instance *row, const DriverInstance *seen, const RevisionFacts *revision)
{
    if (!digest_equal(&seen->id.image, &revision->image)) {
        row->proof = PROOF_BAD;
        find(world, seen->name, "image", g_strdup_printf("'%s' says that it runs another image than revision %u has", seen->name, row->revision));
    }
    if (world->group->journal && seen->id.epoch > store_journal_epoch(world->group->journal))
        world->group->state->newer_epoch = true;
    if (seen->drift)
        find(world, seen->name, "edited", g_strdup(seen->drift));
    row->replace = row->replace || (seen->drift && revision->spec->cure_replace);
}

static Health health_of(World *world, const Instance *row, const DriverInstance *seen, const RevisionFacts *revision, const char *address)
{
    HealthMonitor *monitor = g_hash_table_lookup(world->health, GUINT_TO_POINTER(revision->number));
    const GroupSpec *spec = revision->spec;
    Health health;

    if (row->life != LIFE_RUNNING)
        return HEALTH_UNKNOWN;
    if (!world->watching) /* a reader runs no checks: what was in service is taken for healthy */
        return row->served ? HEALTH_GOOD : HEALTH_UNKNOWN;
    if (spec->health_agent) {
        const DriverOps *ops = world_driver(world, revision)->ops;

        return ops->ping && ops->ping(world_driver(world, revision), seen, NULL) ? HEALTH_GOOD : HEALTH_UNKNOWN;
    }
    if (!monitor)
        return spec->shape.port && !address ? HEALTH_UNKNOWN : HEALTH_GOOD;
    if (!address)
        return HEALTH_UNKNOWN;
    health_watch(monitor, seen->name, address);
    health = health_state(monitor, seen->name);
    return health == HEALTH_BAD && !row->served ? HEALTH_UNKNOWN : health; /* while it boots nobody answers yet: start_timeout judges that */
}

char *world_why_not(World *world, const Instance *row)
{
    HealthMonitor *monitor = g_hash_table_lookup(world->health, GUINT_TO_POINTER(row->revision));
    char name[96];

    group_instance_name(world->group, row->revision, row->slot, row->attempt, name);
    if (row->life == LIFE_DEAD || row->life == LIFE_NONE)
        return g_strdup_printf("'%s' does not run", name);
    if (row->life != LIFE_RUNNING)
        return g_strdup_printf("'%s' is still starting", name);
    if (!group_facts(world->group, row->revision, row->slot, row->attempt)->address)
        return g_strdup_printf("'%s' has no address yet", name);
    if (row->health != HEALTH_GOOD && monitor) {
        g_autofree char *reason = health_reason(monitor, name);

        return g_strdup_printf("'%s' is not healthy: %s", name, reason ? reason : "not checked yet");
    }
    return row->up ? NULL : g_strdup_printf("the balancer's checks of '%s' do not pass", name);
}

/* What has ended is asked no more. */
static void forget_health(World *world, const Instance *row)
{
    HealthMonitor *monitor = g_hash_table_lookup(world->health, GUINT_TO_POINTER(row->revision));
    char name[96];

    if (!monitor)
        return;
    group_instance_name(world->group, row->revision, row->slot, row->attempt, name);
    health_forget(monitor, name);
}

static void merge_times(World *world, Instance *row, const InstanceFacts *facts, const DriverInstance *seen, const GroupSpec *spec)
{
    int64_t born = seen && seen->started ? seen->started * G_USEC_PER_SEC : facts->created_at;

    row->start_late = !row->served && is_after(world, MAX(facts->created_at, facts->entered_at), spec->start_timeout);
    row->drain_late = row->drained && is_after(world, facts->drained_at, spec->drain_deadline);
    row->replace = spec->max_age > 0 && row->served && is_after(world, born, spec->max_age);
    row->cooled = is_after(world, facts->created_at, cool_seconds(row));
}

static gpointer place_key(uint32_t color, uint32_t place)
{
    return GUINT_TO_POINTER(color << 24 | (place & 0xffffff));
}

static const BalancerEntry *entry_of(const World *world, uint32_t color, int32_t place)
{
    return g_hash_table_lookup(world->entries, place_key(color, (uint32_t)place));
}

static void index_entries(World *world)
{
    g_hash_table_remove_all(world->entries);
    for (guint i = 0; world->view.entries && i < world->view.entries->len; i++) {
        BalancerEntry *entry = world->view.entries->pdata[i];

        g_hash_table_insert(world->entries, place_key(entry->color, entry->place), entry);
    }
}

/* Only what stands at its own place counts as its entry, and only with its own address. */
static void merge_route(World *world, Instance *row, const InstanceFacts *facts)
{
    const BalancerEntry *entry;
    g_autofree char *address = NULL;

    if (world->group->state->places == 0) { /* without a balancer the journal is the route */
        row->up = row->health == HEALTH_GOOD;
        row->empty = true;
        row->weight = WEIGHT_MAX;
        return;
    }
    row->up = false;
    row->empty = true;
    row->route = world->view.answers ? ROUTE_OUT : ROUTE_UNKNOWN;
    if (row->place < 0) {
        row->route = ROUTE_OUT;
        return;
    }
    entry = entry_of(world, group_color(world->group, row->revision), row->place);
    address = group_instance_address(world->group, facts);
    if (!entry)
        return;
    if (world->view.answers || world->view.reached) /* where they disagree about something else, this is still so */
        row->route = entry->route;
    if (g_strcmp0(address, entry->address) != 0) { /* somebody else's, or not told yet */
        row->route = world->view.answers ? ROUTE_OUT : ROUTE_UNKNOWN;
        return;
    }
    row->up = entry->up;
    row->empty = entry->sessions == 0;
    row->weight = entry->weight;
}

static void merge_row(World *world, Instance *row)
{
    const RevisionFacts *revision = group_revision_facts(world->group, row->revision);
    InstanceFacts *facts = group_facts(world->group, row->revision, row->slot, row->attempt);
    const DriverInstance *seen = world_seen(world, row->revision, row->slot, row->attempt);

    if (!revision) /* seen, and of a revision that the journal does not know: it has to go */
        return;
    merge_times(world, row, facts, seen, revision->spec);
    if (row->ended) {
        forget_health(world, row);
        return;
    }
    merge_life(world, row, seen, revision->spec);
    if (seen && seen->address && !facts->address)
        facts->address = g_strdup(seen->address);
    if (seen)
        merge_identity(world, row, seen, revision);
    row->health = health_of(world, row, seen, revision, facts->address);
    merge_route(world, row, facts);
}

/* --- findings about what lacks --- */

static void find_missing(World *world)
{
    const GroupState *state = world->group->state;

    for (guint i = 0; i < state->instances->len; i++) {
        const Instance *row = &g_array_index(state->instances, Instance, i);
        char name[96];

        if (row->ended || !row->created || row->life != LIFE_NONE)
            continue;
        group_instance_name(world->group, row->revision, row->slot, row->attempt, name);
        find(world, name, "missing", g_strdup_printf("'%s' is gone, and nobody destroyed it", name));
    }
}

static void find_strange_entries(World *world)
{
    const GroupState *state = world->group->state;
    g_autoptr(GHashTable) owned = g_hash_table_new(g_direct_hash, g_direct_equal);

    for (guint i = 0; i < state->instances->len; i++) {
        const Instance *row = &g_array_index(state->instances, Instance, i);

        if (!row->ended && row->place >= 0 && row->route != ROUTE_OUT && row->life != LIFE_NONE)
            g_hash_table_add(owned, place_key(group_color(world->group, row->revision), (uint32_t)row->place));
    }
    for (guint i = 0; world->view.entries && i < world->view.entries->len; i++) {
        const BalancerEntry *entry = world->view.entries->pdata[i];
        g_autofree char *subject = g_strdup_printf("place %u of color %u", entry->place, entry->color);

        if (!g_hash_table_contains(owned, place_key(entry->color, entry->place)))
            find(world, subject, "balancer", g_strdup_printf("the balancer sends to %s at %s, where no instance of the group is", entry->address ? entry->address : "an address", subject));
    }
}

/* --- one look --- */

static bool observe_balancer(World *world, GError **error)
{
    GroupState *state = world->group->state;

    g_hash_table_remove_all(world->entries);
    balancer_view_clear(&world->view);
    if (!world->balancer) {
        state->balancers_answer = true;
        return true;
    }
    if (!world->balancer->ops->observe(world->balancer, &world->view, error))
        return false;
    index_entries(world);
    state->balancers_answer = world->view.answers;
    if (world->view.answers) {
        state->places = world->view.places;
        state->color = world->view.color;
    } else if (state->places == 0) /* 0 would say that there is no balancer; this one only can't be read */
        state->places = group_ruling(world->group) ? world_places(group_ruling(world->group)->spec, state->size) : 1;
    if (world->view.problem)
        find(world, "balancer", "balancer", g_strdup(world->view.problem));
    return true;
}

static void merge_clocks(World *world)
{
    const RevisionFacts *ruling = group_ruling(world->group);
    GroupState *state = world->group->state;
    double hold;

    if (!ruling)
        return;
    hold = state->phase == PHASE_HOLD ? ruling->spec->rollback_keep : ruling->spec->canary_hold;
    state->hold_over = is_after(world, world->group->phase_at, hold);
    state->deadline_over = state->target && ruling->spec->deadline > 0 && state->phase != PHASE_HOLD && state->phase != PHASE_CLEAN &&
                           is_after(world, world->group->begun_at, ruling->spec->deadline);
}

/* Hosts that the ruling spec does not name get nothing new. */
static void restrict_hosts(World *world)
{
    const RevisionFacts *ruling = group_ruling(world->group);
    GroupState *state = world->group->state;

    for (unsigned i = 0; ruling && i < state->host_count; i++)
        if (world_driver_host(world, ruling, (int)i) < 0)
            state->hosts[i] = false;
}

bool world_observe(World *world, GError **error)
{
    GroupState *state = world->group->state;

    world->now = g_get_real_time();
    g_hash_table_remove_all(world->seen_at);
    g_clear_pointer(&world->seen, g_ptr_array_unref);
    world->seen = g_ptr_array_new_with_free_func((GDestroyNotify)driver_instance_free);
    g_ptr_array_set_size(world->findings, 0);
    state->newer_epoch = false;
    for (guint i = 0; i < world->drivers->len; i++)
        if (!observe_driver(world, world->drivers->pdata[i], error))
            return false;
    if (!observe_balancer(world, error))
        return false;
    for (guint i = 0; i < state->instances->len; i++)
        merge_row(world, &g_array_index(state->instances, Instance, i));
    find_missing(world);
    find_strange_entries(world);
    restrict_hosts(world);
    merge_clocks(world);
    return true;
}

void world_wait(World *world, double seconds)
{
    for (guint i = 0; i < world->drivers->len; i++) {
        OpenDriver *open = world->drivers->pdata[i];

        if (open->driver->ops->wait) {
            open->driver->ops->wait(open->driver, seconds);
            return;
        }
    }
    g_usleep((gulong)(seconds * G_USEC_PER_SEC));
}
