/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Balancer "fake": places are files in a folder. No network.
 *
 *   balancer "fake" {
 *     dir       = "/tmp/world"  # needed; may be the fake driver's folder
 *     instances = "/tmp/world"  # the fake driver's folder, default: dir
 *     places    = 64            # per pool
 *     delay     = 0             # seconds that each call takes
 *   }
 *
 *   DIR/entries/COLOR-PLACE.json  {"address", "route": "drained"|"in", "weight", "since": us of the last route}
 *   DIR/balancer.json             {"color": N}: what the map names
 * and what tests may write at any time:
 *   DIR/lost                      exists: the balancer does not answer
 *   DIR/sick                      lines "IP" or "IP:PORT": their checks fail
 *   DIR/sessions.json             {WHO: number}
 *   DIR/counters.json             {WHO: {"requests", "errors", "time_ms"}}, or as rates since the entry got traffic:
 *                                 {WHO: {"rate": requests a second, "error_share": 0..1, "mean_ms"}}
 *                                 WHO is "IP:PORT", "IP", "rREVISION" (of the instance that has the address) or "*", the first that is there
 *
 * An entry is up when its instance runs, as far as the driver's folder knows one with its address, and DIR/sick does not list it. A
 * file per entry, so that a rollout of a thousand instances writes a thousand small files and not a thousand times all entries.
 */
#include "deploy/fake-world.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "deploy/balancer.h"
#include "deploy/members.h"

#include <fcntl.h>
#include <stdio.h>

#define PLACES_MAX 65536
#define COLORS 2u

typedef struct FakeBalancer {
    Balancer balancer;
    FakeWorld *world, *instances;
    char *group;
    unsigned places, wanted;
    double delay;
} FakeBalancer;

static bool read_arguments(const json_t *arguments, FakeBalancer *fake, const char **ret_argument, GError **error)
{
    static const char *const keys[] = {"dir", "instances", "places", "delay", NULL};
    const json_t *delay = json_object_get(arguments, "delay");
    const char *dir, *instances;
    int64_t places;

    if (!json_only_keys(arguments, keys, ret_argument))
        return fail(error, "balancer \"fake\" has no argument '%s'", *ret_argument);
    *ret_argument = "dir";
    if (!json_get_string(arguments, "dir", NULL, &dir, error))
        return false;
    if (!dir || !g_path_is_absolute(dir))
        return fail(error, "balancer \"fake\" needs dir = \"/some/folder\"");
    *ret_argument = "instances";
    if (!json_get_string(arguments, "instances", dir, &instances, error))
        return false;
    *ret_argument = "places";
    if (!json_get_int(arguments, "places", 64, &places, error))
        return false;
    if (places < 1 || places > PLACES_MAX)
        return fail(error, "'places' must be from 1 to %d", PLACES_MAX);
    *ret_argument = "delay";
    if (delay && (!json_is_number(delay) || json_number_value(delay) < 0 || json_number_value(delay) > 60))
        return fail(error, "'delay' must be a number of seconds, from 0 to 60");
    fake->delay = delay ? json_number_value(delay) : 0;
    fake->places = (unsigned)places;
    fake->world = fake_world_new(dir);
    fake->instances = fake_world_new(instances);
    return true;
}

static void fake_close(Balancer *balancer)
{
    FakeBalancer *fake = (FakeBalancer *)balancer;

    if (!fake)
        return;
    fake_world_free(fake->world);
    fake_world_free(fake->instances);
    g_free(fake->group);
    g_free(fake);
}

static bool fake_check(const json_t *arguments, Strategy strategy, const char **ret_argument, GError **error)
{
    FakeBalancer *fake = g_new0(FakeBalancer, 1);
    const char *culprit = NULL;
    bool ok = read_arguments(arguments, fake, &culprit, error);

    *ret_argument = ok ? NULL : culprit;
    fake_close(&fake->balancer);
    return ok;
}

static bool fake_open(const BalancerConfig *config, Balancer **ret, GError **error)
{
    FakeBalancer *fake = g_new0(FakeBalancer, 1);
    g_autofree char *entries = NULL;
    const char *culprit;

    fake->balancer.ops = &balancer_fake_ops;
    fake->group = g_strdup(config->group);
    fake->wanted = config->places;
    if (!read_arguments(config->arguments, fake, &culprit, error)) {
        fake_close(&fake->balancer);
        return false;
    }
    entries = g_build_filename(fake->world->dir, "entries", NULL);
    if (!file_make_dirs(entries, 0755, error)) {
        fake_close(&fake->balancer);
        return false;
    }
    *ret = &fake->balancer;
    return true;
}

static char *fake_config_lines(const BalancerConfig *config)
{
    return g_strdup_printf("# group %s: the fake balancer needs no configuration\n", config->group);
}

/* --- what a test may have ordered --------------------------------------------------------- */

static bool answers(const FakeBalancer *fake, GError **error)
{
    g_autofree char *lost = g_build_filename(fake->world->dir, "lost", NULL);

    if (fake->delay > 0)
        g_usleep((gulong)(fake->delay * 1e6));
    if (access(lost, F_OK) == 0)
        return fail_code(error, KILN_ERROR_TIMEOUT, "the balancer in '%s' does not answer", fake->world->dir);
    return true;
}

static char *host_part(const char *address)
{
    const char *colon = strrchr(address, ':');

    return colon ? g_strndup(address, (gsize)(colon - address)) : g_strdup(address);
}

/* Instances by address; borrowed until the next look. NULL where there are none. */
static GHashTable *by_address(FakeBalancer *fake)
{
    GHashTable *table = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GPtrArray) list = NULL;

    if (!fake_world_read(fake->instances, NULL, &list, NULL))
        return table;
    for (guint i = 0; i < list->len; i++) {
        FakeInstance *instance = g_ptr_array_index(list, i);

        if (instance->address)
            g_hash_table_insert(table, instance->address, instance);
    }
    return table;
}

static const json_t *find_who(const json_t *document, const char *address, GHashTable *instances)
{
    g_autofree char *host = host_part(address), *revision = NULL;
    const FakeInstance *instance = g_hash_table_lookup(instances, host);
    const json_t *found = json_object_get(document, address);

    if (instance)
        revision = g_strdup_printf("r%u", instance->id.revision);
    if (!found)
        found = json_object_get(document, host);
    if (!found && revision)
        found = json_object_get(document, revision);
    return found ? found : json_object_get(document, "*");
}

static bool load_sick(const FakeBalancer *fake, char ***ret, GError **error)
{
    g_autofree char *path = g_build_filename(fake->world->dir, "sick", NULL);
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GError) problem = NULL;

    if (!file_load(AT_FDCWD, path, 1 << 20, &bytes, &problem)) {
        *ret = g_new0(char *, 1);
        return g_error_matches(problem, KILN_ERROR, KILN_ERROR_NOT_FOUND) || fail(error, "%s", problem->message);
    }
    *ret = g_strsplit_set(g_bytes_get_data(bytes, NULL), " \n", -1);
    return true;
}

/* --- entries ------------------------------------------------------------------------------ */

typedef struct Entry {
    char *address; /* NULL: the place is empty */
    Route route;
    unsigned weight;
    int64_t since;
} Entry;

static void entry_clear(Entry *entry)
{
    g_free(entry->address);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Entry, entry_clear)

static char *entry_name(uint32_t color, uint32_t place)
{
    return g_strdup_printf("entries/%u-%u.json", color, place);
}

static bool entry_load(const FakeBalancer *fake, uint32_t color, uint32_t place, Entry *ret, GError **error)
{
    g_autofree char *name = entry_name(color, place);
    g_autoptr(json_t) json = NULL;
    const char *address, *route;
    int64_t weight;

    *ret = (Entry){.address = NULL};
    if (color >= COLORS || place >= fake->places)
        return fail(error, "the balancer has no place %u in pool %u, only %u", place, color, fake->places);
    if (!fake_world_document(fake->world, name, &json, error))
        return false;
    if (!json)
        return true;
    if (!json_get_string(json, "address", NULL, &address, error) || !json_get_string(json, "route", "drained", &route, error) ||
        !json_get_int(json, "weight", 0, &weight, error) || !json_get_int(json, "since", 0, &ret->since, error))
        return fail_prefix(error, "%s", name);
    ret->route = strcmp(route, "in") == 0 ? ROUTE_IN : ROUTE_DRAINED;
    ret->weight = (unsigned)CLAMP(weight, 0, WEIGHT_MAX);
    ret->address = g_strdup(address);
    return true;
}

static bool entry_store(const FakeBalancer *fake, uint32_t color, uint32_t place, const Entry *entry, GError **error)
{
    g_autofree char *name = entry_name(color, place), *path = g_build_filename(fake->world->dir, name, NULL), *text = NULL;
    g_autoptr(json_t) json = json_pack("{s:s, s:s, s:I, s:I}", "address", entry->address, "route", entry->route == ROUTE_IN ? "in" : "drained",
                                       "weight", (json_int_t)entry->weight, "since", (json_int_t)entry->since);

    if (!json)
        return fail(error, "'%s' is no address", entry->address);
    text = json_pretty(json);
    return file_replace(AT_FDCWD, path, text, strlen(text), 0644, FILE_SYNC_NO, error);
}

static bool load_full(FakeBalancer *fake, uint32_t color, uint32_t place, Entry *ret, GError **error)
{
    if (!answers(fake, error) || !entry_load(fake, color, place, ret, error))
        return false;
    return ret->address || fail(error, "place %u of the balancer's pool %u is empty", place, color);
}

static bool fake_enter(Balancer *balancer, uint32_t color, uint32_t place, const char *address, GError **error)
{
    FakeBalancer *fake = (FakeBalancer *)balancer;
    Entry fresh = {.address = (char *)address, .route = ROUTE_DRAINED};
    g_auto(Entry) there = {NULL, ROUTE_OUT, 0, 0};

    if (!answers(fake, error) || !entry_load(fake, color, place, &there, error))
        return false;
    if (there.address && strcmp(there.address, address) != 0)
        return fail(error, "place %u of the balancer's pool %u has '%s' already", place, color, there.address);
    return there.address || entry_store(fake, color, place, &fresh, error);
}

static bool fake_route(Balancer *balancer, uint32_t color, uint32_t place, unsigned weight, GError **error)
{
    FakeBalancer *fake = (FakeBalancer *)balancer;
    g_auto(Entry) entry = {NULL, ROUTE_OUT, 0, 0};

    if (!load_full(fake, color, place, &entry, error))
        return false;
    if (entry.route != ROUTE_IN)
        entry.since = g_get_real_time();
    entry.route = ROUTE_IN;
    entry.weight = CLAMP(weight, 1, WEIGHT_MAX);
    return entry_store(fake, color, place, &entry, error);
}

static bool fake_drain(Balancer *balancer, uint32_t color, uint32_t place, GError **error)
{
    FakeBalancer *fake = (FakeBalancer *)balancer;
    g_auto(Entry) entry = {NULL, ROUTE_OUT, 0, 0};

    if (!load_full(fake, color, place, &entry, error))
        return false;
    entry.route = ROUTE_DRAINED;
    return entry_store(fake, color, place, &entry, error);
}

/* Sessions of @address as a test wrote them. */
static uint64_t sessions_of(const json_t *document, const char *address, GHashTable *instances)
{
    const json_t *said = document ? find_who(document, address, instances) : NULL;

    return json_is_integer(said) && json_integer_value(said) > 0 ? (uint64_t)json_integer_value(said) : 0;
}

static bool fake_leave(Balancer *balancer, uint32_t color, uint32_t place, uint64_t *ret_cut, GError **error)
{
    FakeBalancer *fake = (FakeBalancer *)balancer;
    g_autofree char *name = entry_name(color, place), *path = g_build_filename(fake->world->dir, name, NULL);
    g_auto(Entry) entry = {NULL, ROUTE_OUT, 0, 0};
    g_autoptr(json_t) sessions = NULL;

    if (!answers(fake, error) || !entry_load(fake, color, place, &entry, error) ||
        !fake_world_document(fake->world, "sessions.json", &sessions, error))
        return false;
    if (unlink(path) < 0 && errno != ENOENT)
        return fail_errno(error, "remove '%s'", path);
    *ret_cut = 0;
    if (entry.address && sessions) {
        g_autoptr(GHashTable) instances = by_address(fake);

        *ret_cut = sessions_of(sessions, entry.address, instances);
    }
    return true;
}

/* --- the map ------------------------------------------------------------------------------ */

static bool load_color(const FakeBalancer *fake, int32_t *ret, GError **error)
{
    g_autoptr(json_t) json = NULL;
    int64_t color;

    if (!fake_world_document(fake->world, "balancer.json", &json, error) || !json_get_int(json, "color", -1, &color, error))
        return false;
    *ret = color >= 0 && color < (int64_t)COLORS ? (int32_t)color : -1;
    return true;
}

static bool fake_switch_color(Balancer *balancer, uint32_t color, GError **error)
{
    const FakeBalancer *fake = (const FakeBalancer *)balancer;
    g_autofree char *path = g_build_filename(fake->world->dir, "balancer.json", NULL), *text = g_strdup_printf("{\"color\": %u}\n", color);

    if (!answers(fake, error))
        return false;
    if (color >= COLORS)
        return fail(error, "the balancer has no pool %u", color);
    return file_replace(AT_FDCWD, path, text, strlen(text), 0644, FILE_SYNC_NO, error);
}

/* --- looking ------------------------------------------------------------------------------ */

static bool fake_verify(Balancer *balancer, GError **error)
{
    const FakeBalancer *fake = (const FakeBalancer *)balancer;

    if (!answers(fake, error))
        return false;
    if (fake->places < fake->wanted)
        return fail(error, "group '%s' needs %u places in the balancer, and it has %u: set places = %u", fake->group, fake->wanted, fake->places,
                    fake->wanted);
    return true;
}

typedef struct Looking {
    FakeBalancer *fake;
    json_t *sessions;
    GHashTable *instances;
    char **sick;
} Looking;

static bool is_up(const Looking *looking, const char *address)
{
    g_autofree char *host = host_part(address);
    const FakeInstance *instance = g_hash_table_lookup(looking->instances, host);

    if (g_strv_contains((const char *const *)looking->sick, address) || g_strv_contains((const char *const *)looking->sick, host))
        return false;
    return !instance || fake_instance_life(instance) == LIFE_RUNNING;
}

static bool look_at(const Looking *looking, uint32_t color, uint32_t place, BalancerView *view, GError **error)
{
    g_auto(Entry) entry = {NULL, ROUTE_OUT, 0, 0};
    BalancerEntry *seen;

    if (!entry_load(looking->fake, color, place, &entry, error))
        return false;
    if (!entry.address)
        return true;
    seen = g_new0(BalancerEntry, 1);
    seen->color = color;
    seen->place = place;
    seen->route = entry.route;
    seen->weight = entry.weight;
    seen->up = is_up(looking, entry.address);
    seen->sessions = sessions_of(looking->sessions, entry.address, looking->instances);
    seen->address = g_steal_pointer(&entry.address);
    g_ptr_array_add(view->entries, seen);
    return true;
}

static int compare_entries(const void *a, const void *b)
{
    const BalancerEntry *ea = *(const BalancerEntry *const *)a, *eb = *(const BalancerEntry *const *)b;

    if (ea->color != eb->color)
        return ea->color < eb->color ? -1 : 1;
    return ea->place < eb->place ? -1 : ea->place > eb->place;
}

static bool look_at_all(const Looking *looking, BalancerView *view, GError **error)
{
    g_autofree char *path = g_build_filename(looking->fake->world->dir, "entries", NULL);
    auto_dir DIR *dir = opendir(path);
    struct dirent *entry;
    unsigned color, place;

    while (dir && (entry = readdir(dir)))
        if (sscanf(entry->d_name, "%1u-%5u.json", &color, &place) == 2 && color < COLORS && place < looking->fake->places &&
            !look_at(looking, color, place, view, error))
            return false;
    g_ptr_array_sort(view->entries, compare_entries);
    return true;
}

static bool fake_observe(Balancer *balancer, BalancerView *ret, GError **error)
{
    Looking looking = {.fake = (FakeBalancer *)balancer};
    g_autoptr(GError) problem = NULL;
    bool ok;

    *ret = (BalancerView){.color = -1, .entries = g_ptr_array_new_with_free_func((GDestroyNotify)balancer_entry_free)};
    if (!answers(looking.fake, &problem)) {
        ret->problem = g_strdup(problem->message);
        return true;
    }
    ret->answers = ret->reached = true;
    ret->places = looking.fake->places;
    looking.instances = by_address(looking.fake);
    ok = fake_world_document(looking.fake->world, "sessions.json", &looking.sessions, error) && load_sick(looking.fake, &looking.sick, error) &&
         load_color(looking.fake, &ret->color, error) && look_at_all(&looking, ret, error);
    g_hash_table_unref(looking.instances);
    g_strfreev(looking.sick);
    json_decref(looking.sessions);
    if (!ok)
        balancer_view_clear(ret);
    return ok;
}

static uint64_t number_of(const json_t *said, const char *key)
{
    double value = json_number_value(json_object_get(said, key));

    return value > 0 && value < 1e18 ? (uint64_t)value : 0;
}

static bool fake_counters(Balancer *balancer, uint32_t color, uint32_t place, BalancerCounters *ret, GError **error)
{
    FakeBalancer *fake = (FakeBalancer *)balancer;
    g_auto(Entry) entry = {NULL, ROUTE_OUT, 0, 0};
    g_autoptr(GHashTable) instances = NULL;
    g_autoptr(json_t) json = NULL;
    const json_t *said;
    double seconds, rate;

    if (!load_full(fake, color, place, &entry, error) || !fake_world_document(fake->world, "counters.json", &json, error))
        return false;
    instances = by_address(fake);
    said = json ? find_who(json, entry.address, instances) : NULL;
    *ret = (BalancerCounters){number_of(said, "requests"), number_of(said, "errors"), number_of(said, "time_ms")};
    rate = json_number_value(json_object_get(said, "rate"));
    if (rate > 0 && rate < 1e9 && entry.since > 0) {
        seconds = (double)(g_get_real_time() - entry.since) / 1e6;
        ret->requests += (uint64_t)(rate * seconds);
        ret->errors += (uint64_t)(rate * seconds * CLAMP(json_number_value(json_object_get(said, "error_share")), 0, 1));
        ret->time_ms += (uint64_t)(rate * seconds * CLAMP(json_number_value(json_object_get(said, "mean_ms")), 0, 1e6));
    }
    return true;
}

const BalancerOps balancer_fake_ops = {
    .name = "fake",
    .check = fake_check,
    .open = fake_open,
    .close = fake_close,
    .config_lines = fake_config_lines,
    .verify = fake_verify,
    .observe = fake_observe,
    .enter = fake_enter,
    .route = fake_route,
    .drain = fake_drain,
    .leave = fake_leave,
    .switch_color = fake_switch_color,
    .counters = fake_counters,
    .weighs = true,
};
