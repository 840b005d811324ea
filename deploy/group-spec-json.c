/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group's spec as JSON, as the journal keeps it with each revision, and back.
 *
 * The way back checks types and bounds again, though not whether the spec makes sense: a journal comes with a store, and a store may come
 * from anywhere. A key that is not known here was written by a newer kiln and may mean anything, so it is refused.
 */
#include "deploy/group-private.h"

#include "base/error.h"

#include <string.h>

enum { SPEC_VERSION = 1 };

void group_spec_free(GroupSpec *spec)
{
    if (!spec)
        return;
    g_free(spec->name);
    g_free(spec->image_ref);
    g_free(spec->driver);
    g_free(spec->balancer);
    json_decref(spec->driver_arguments);
    json_decref(spec->balancer_arguments);
    g_free(spec->shape.user_data);
    g_strfreev(spec->shape.environment);
    g_free(spec->shape.bridge);
    g_free(spec->shape.libvirt_network);
    g_strfreev(spec->shape.addresses);
    g_free(spec->shape.gateway);
    g_clear_pointer(&spec->shape.volumes, g_ptr_array_unref);
    g_strfreev(spec->shape.allow);
    g_free(spec->health_http);
    g_clear_pointer(&spec->analyses, g_ptr_array_unref);
    g_strfreev(spec->drift_ignore);
    g_free(spec);
}

/* --- the fields, once for both ways --- */

typedef enum FieldType { FIELD_TEXT, FIELD_TEXTS, FIELD_OBJECT, FIELD_BOOL, FIELD_COUNT, FIELD_SIZE, FIELD_REAL, FIELD_WORD } FieldType;

typedef struct Field {
    const char *key;
    FieldType type;
    size_t offset;
    double max; /* of numbers */
    bool needed; /* texts and objects: not NULL */
    const char *const *words; /* of an enum, NULL-terminated: a journal outlives the order of an enum */
} Field;

#define SPEC(member) offsetof(GroupSpec, member)

static const char *const strategies[] = {[STRATEGY_ROLLING] = "rolling", [STRATEGY_BLUEGREEN] = "bluegreen", [STRATEGY_CANARY] = "canary", NULL};
static const char *const analysis_kinds[] = {[ANALYSIS_BALANCER] = "balancer", [ANALYSIS_PROMETHEUS] = "prometheus", [ANALYSIS_COMMAND] = "command", NULL};

static const Field spec_fields[] = {
    {"name", FIELD_TEXT, SPEC(name), 0, true, NULL},
    {"image", FIELD_TEXT, SPEC(image_ref), 0, true, NULL},
    {"driver", FIELD_TEXT, SPEC(driver), 0, true, NULL},
    {"balancer", FIELD_TEXT, SPEC(balancer), 0, true, NULL},
    {"driver_arguments", FIELD_OBJECT, SPEC(driver_arguments), 0, true, NULL},
    {"balancer_arguments", FIELD_OBJECT, SPEC(balancer_arguments), 0, true, NULL},
    {"memory", FIELD_SIZE, SPEC(shape.memory), (double)GROUP_MEMORY_MAX, false, NULL},
    {"cpus", FIELD_COUNT, SPEC(shape.cpus), 1024, false, NULL},
    {"user_data", FIELD_TEXT, SPEC(shape.user_data), 0, false, NULL},
    {"environment", FIELD_TEXTS, SPEC(shape.environment), 0, false, NULL},
    {"bridge", FIELD_TEXT, SPEC(shape.bridge), 0, false, NULL},
    {"libvirt_network", FIELD_TEXT, SPEC(shape.libvirt_network), 0, false, NULL},
    {"addresses", FIELD_TEXTS, SPEC(shape.addresses), 0, false, NULL},
    {"gateway", FIELD_TEXT, SPEC(shape.gateway), 0, false, NULL},
    {"allow", FIELD_TEXTS, SPEC(shape.allow), 0, false, NULL},
    {"health_http", FIELD_TEXT, SPEC(health_http), 0, false, NULL},
    {"health_tcp", FIELD_BOOL, SPEC(health_tcp), 0, false, NULL},
    {"health_agent", FIELD_BOOL, SPEC(health_agent), 0, false, NULL},
    {"health_port", FIELD_COUNT, SPEC(health_port), 65535, false, NULL},
    {"health_interval", FIELD_REAL, SPEC(health_interval), GROUP_DURATION_MAX, false, NULL},
    {"start_timeout", FIELD_REAL, SPEC(start_timeout), GROUP_DURATION_MAX, false, NULL},
    {"rise", FIELD_COUNT, SPEC(rise), 100, false, NULL},
    {"fall", FIELD_COUNT, SPEC(fall), 100, false, NULL},
    {"drain_deadline", FIELD_REAL, SPEC(drain_deadline), GROUP_DURATION_MAX, false, NULL},
    {"strategy", FIELD_WORD, SPEC(rules.strategy), 0, true, strategies},
    {"max_surge", FIELD_COUNT, SPEC(rules.max_surge), GROUP_SIZE_MAX, false, NULL},
    {"max_unavailable", FIELD_COUNT, SPEC(rules.max_unavailable), GROUP_SIZE_MAX, false, NULL},
    {"gate", FIELD_BOOL, SPEC(rules.gate), 0, false, NULL},
    {"analysis", FIELD_BOOL, SPEC(rules.analysis), 0, false, NULL},
    {"baseline", FIELD_BOOL, SPEC(rules.baseline), 0, false, NULL},
    {"exclusive", FIELD_BOOL, SPEC(rules.exclusive), 0, false, NULL},
    {"weighted", FIELD_BOOL, SPEC(rules.weighted), 0, false, NULL},
    {"start_retries", FIELD_COUNT, SPEC(rules.start_retries), 1000, false, NULL},
    {"canary_hold", FIELD_REAL, SPEC(canary_hold), GROUP_DURATION_MAX, false, NULL},
    {"sticky", FIELD_BOOL, SPEC(sticky), 0, false, NULL},
    {"rollback_keep", FIELD_REAL, SPEC(rollback_keep), GROUP_DURATION_MAX, false, NULL},
    {"deadline", FIELD_REAL, SPEC(deadline), GROUP_DURATION_MAX, false, NULL},
    {"max_age", FIELD_REAL, SPEC(max_age), GROUP_DURATION_MAX, false, NULL},
    {"host_lost_after", FIELD_REAL, SPEC(host_lost_after), GROUP_DURATION_MAX, false, NULL},
    {"cure_replace", FIELD_BOOL, SPEC(cure_replace), 0, false, NULL},
    {"drift_ignore", FIELD_TEXTS, SPEC(drift_ignore), 0, false, NULL},
    {"ephemeral", FIELD_BOOL, SPEC(ephemeral), 0, false, NULL},
    {"approval", FIELD_BOOL, SPEC(approval), 0, false, NULL},
    {"needs_test", FIELD_BOOL, SPEC(needs_test), 0, false, NULL},
};
G_STATIC_ASSERT(sizeof(Strategy) == sizeof(unsigned));
G_STATIC_ASSERT(sizeof(AnalysisKind) == sizeof(unsigned));

static const Field volume_fields[] = {
    {"name", FIELD_TEXT, offsetof(VolumeSpec, name), 0, true, NULL},
    {"mount", FIELD_TEXT, offsetof(VolumeSpec, mount), 0, true, NULL},
    {"size", FIELD_SIZE, offsetof(VolumeSpec, size), (double)GROUP_VOLUME_MAX, false, NULL},
};

static const Field analysis_fields[] = {
    {"kind", FIELD_WORD, offsetof(AnalysisSpec, kind), 0, true, analysis_kinds},
    {"url", FIELD_TEXT, offsetof(AnalysisSpec, url), 0, false, NULL},
    {"query_canary", FIELD_TEXT, offsetof(AnalysisSpec, query_canary), 0, false, NULL},
    {"query_baseline", FIELD_TEXT, offsetof(AnalysisSpec, query_baseline), 0, false, NULL},
    {"command", FIELD_TEXTS, offsetof(AnalysisSpec, command), 0, false, NULL},
    {"interval", FIELD_REAL, offsetof(AnalysisSpec, interval), GROUP_DURATION_MAX, false, NULL},
    {"samples", FIELD_COUNT, offsetof(AnalysisSpec, samples), 100000, false, NULL},
    {"allowed_increase", FIELD_REAL, offsetof(AnalysisSpec, allowed_increase), 1000, false, NULL},
    {"confidence", FIELD_REAL, offsetof(AnalysisSpec, confidence), 0.9999, false, NULL},
    {"tolerance", FIELD_REAL, offsetof(AnalysisSpec, tolerance), 1, false, NULL},
    {"pass_score", FIELD_REAL, offsetof(AnalysisSpec, pass_score), 100, false, NULL},
    {"marginal_score", FIELD_REAL, offsetof(AnalysisSpec, marginal_score), 100, false, NULL},
};

static const Field step_fields[] = {
    {"percent", FIELD_COUNT, offsetof(CanaryStep, percent), 100, false, NULL},
    {"count", FIELD_COUNT, offsetof(CanaryStep, count), GROUP_SIZE_MAX, false, NULL},
};

/* --- to JSON --- */

static json_t *texts_json(char **list)
{
    json_t *array = json_array();

    for (; *list; list++)
        (void)json_array_append_new(array, json_string(*list));
    return array;
}

static json_t *field_json(const Field *field, const void *owner)
{
    const void *at = (const char *)owner + field->offset;

    switch (field->type) {
    case FIELD_TEXT:
        return *(char *const *)at ? json_string(*(char *const *)at) : NULL;
    case FIELD_TEXTS:
        return *(char **const *)at ? texts_json(*(char **const *)at) : NULL;
    case FIELD_OBJECT:
        return json_deep_copy(*(json_t *const *)at);
    case FIELD_BOOL:
        return json_boolean(*(const bool *)at);
    case FIELD_COUNT:
        return json_integer(*(const unsigned *)at);
    case FIELD_SIZE:
        return json_integer((json_int_t) * (const uint64_t *)at);
    case FIELD_REAL:
        return json_real(*(const double *)at);
    case FIELD_WORD:
        return json_string(field->words[*(const unsigned *)at]);
    }
    return NULL;
}

static json_t *fields_json(const Field *fields, size_t count, const void *owner)
{
    json_t *object = json_object();

    for (size_t i = 0; i < count; i++) {
        json_t *value = field_json(&fields[i], owner);

        if (value) /* what is NULL is left out */
            (void)json_object_set_new(object, fields[i].key, value);
    }
    return object;
}

static json_t *list_json(const Field *fields, size_t count, const GPtrArray *list)
{
    json_t *array = json_array();

    for (guint i = 0; i < list->len; i++)
        (void)json_array_append_new(array, fields_json(fields, count, list->pdata[i]));
    return array;
}

json_t *group_spec_json(const GroupSpec *spec)
{
    json_t *object = fields_json(spec_fields, G_N_ELEMENTS(spec_fields), spec), *steps = json_array();

    for (unsigned i = 0; i < spec->rules.step_count; i++)
        (void)json_array_append_new(steps, fields_json(step_fields, G_N_ELEMENTS(step_fields), &spec->rules.steps[i]));
    (void)json_object_set_new(object, "version", json_integer(SPEC_VERSION));
    (void)json_object_set_new(object, "steps", steps);
    (void)json_object_set_new(object, "volumes", list_json(volume_fields, G_N_ELEMENTS(volume_fields), spec->shape.volumes));
    (void)json_object_set_new(object, "analyses", list_json(analysis_fields, G_N_ELEMENTS(analysis_fields), spec->analyses));
    return object;
}

/* --- from JSON --- */

static bool number_fits(const Field *field, const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) >= 0 && (double)json_integer_value(value) <= field->max;
}

static bool read_texts(const json_t *object, const Field *field, const json_t *value, char ***ret)
{
    if (!value)
        return true;
    return json_is_array(value) && json_array_size(value) <= GROUP_LIST_MAX && json_get_strings(object, field->key, ret, NULL);
}

static bool read_word(const Field *field, const json_t *value, unsigned *ret)
{
    const char *word = json_string_value(value);

    for (unsigned i = 0; word && field->words[i]; i++)
        if (strcmp(field->words[i], word) == 0) {
            *ret = i;
            return true;
        }
    return false;
}

static bool read_field(const json_t *object, const Field *field, void *owner)
{
    void *at = (char *)owner + field->offset;
    const json_t *value = json_object_get(object, field->key);

    switch (field->type) {
    case FIELD_TEXT:
        *(char **)at = g_strdup(json_string_value(value));
        return value ? json_is_string(value) : !field->needed;
    case FIELD_TEXTS:
        return read_texts(object, field, value, at);
    case FIELD_OBJECT:
        *(json_t **)at = json_deep_copy(value);
        return json_is_object(value);
    case FIELD_BOOL:
        *(bool *)at = json_is_true(value);
        return json_is_boolean(value);
    case FIELD_COUNT:
        *(unsigned *)at = (unsigned)json_integer_value(value);
        return number_fits(field, value);
    case FIELD_SIZE:
        *(uint64_t *)at = (uint64_t)json_integer_value(value);
        return number_fits(field, value);
    case FIELD_REAL:
        *(double *)at = json_number_value(value);
        return json_is_number(value) && json_number_value(value) >= 0 && json_number_value(value) <= field->max;
    case FIELD_WORD:
        return read_word(field, value, at);
    }
    return false;
}

static bool is_field(const char *key, const Field *fields, size_t count, const char *const *also)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(fields[i].key, key) == 0)
            return true;
    return also && g_strv_contains(also, key);
}

static bool read_fields(const json_t *object, const Field *fields, size_t count, const char *const *also, void *owner, GError **error)
{
    const char *key;
    json_t *value;

    if (!json_is_object(object))
        return fail(error, "a group's recorded spec has something else where an object belongs");
    json_object_foreach ((json_t *)object, key, value)
        if (!is_field(key, fields, count, also))
            return fail(error, "a group's recorded spec has '%.64s', which this version of kiln does not know: use the newer one", key);
    for (size_t i = 0; i < count; i++)
        if (!read_field(object, &fields[i], owner))
            return fail(error, "'%s' is missing or wrong in a group's recorded spec", fields[i].key);
    return true;
}

static const json_t *read_list(const json_t *object, const char *key, size_t max, GError **error)
{
    const json_t *list = json_object_get(object, key);

    if (json_is_array(list) && json_array_size(list) <= max)
        return list;
    (void)fail(error, "'%s' is missing or wrong in a group's recorded spec", key);
    return NULL;
}

static bool read_steps(const json_t *json, GroupRules *rules, GError **error)
{
    const json_t *list = read_list(json, "steps", CANARY_STEPS_MAX, error), *one;
    size_t index;

    if (!list)
        return false;
    json_array_foreach (list, index, one) {
        CanaryStep *step = &rules->steps[rules->step_count++];

        if (!read_fields(one, step_fields, G_N_ELEMENTS(step_fields), NULL, step, error))
            return false;
        if ((step->percent > 0) == (step->count > 0))
            return fail(error, "'steps' is wrong in a group's recorded spec");
    }
    return true;
}

static bool read_volumes(const json_t *json, GPtrArray *volumes, GError **error)
{
    const json_t *list = read_list(json, "volumes", GROUP_VOLUMES_MAX, error), *one;
    size_t index;

    json_array_foreach (list, index, one) {
        VolumeSpec *volume = g_new0(VolumeSpec, 1);

        g_ptr_array_add(volumes, volume);
        if (!read_fields(one, volume_fields, G_N_ELEMENTS(volume_fields), NULL, volume, error))
            return false;
    }
    return list != NULL;
}

/* What each kind cannot do without. */
static bool is_whole(const AnalysisSpec *spec)
{
    if (spec->kind == ANALYSIS_PROMETHEUS)
        return spec->url && spec->query_canary && spec->query_baseline;
    return spec->kind != ANALYSIS_COMMAND || (spec->command && spec->command[0]);
}

static bool read_analyses(const json_t *json, GPtrArray *analyses, GError **error)
{
    const json_t *list = read_list(json, "analyses", GROUP_ANALYSES_MAX, error), *one;
    size_t index;

    json_array_foreach (list, index, one) {
        AnalysisSpec *analysis = g_new0(AnalysisSpec, 1);

        g_ptr_array_add(analyses, analysis);
        if (!read_fields(one, analysis_fields, G_N_ELEMENTS(analysis_fields), NULL, analysis, error))
            return false;
        if (!is_whole(analysis))
            return fail(error, "'analyses' is wrong in a group's recorded spec");
    }
    return list != NULL;
}

bool group_spec_from_json(const json_t *json, GroupSpec **ret, GError **error)
{
    static const char *const also[] = {"version", "steps", "volumes", "analyses", NULL};
    g_autoptr(GroupSpec) spec = g_new0(GroupSpec, 1);

    spec->analyses = g_ptr_array_new_with_free_func((GDestroyNotify)analysis_spec_free);
    spec->shape.volumes = g_ptr_array_new_with_free_func((GDestroyNotify)volume_spec_free);
    if (json_integer_value(json_object_get(json, "version")) != SPEC_VERSION)
        return fail(error, "a group's recorded spec is of a version that this kiln does not know");
    if (!read_fields(json, spec_fields, G_N_ELEMENTS(spec_fields), also, spec, error) || !read_steps(json, &spec->rules, error) ||
        !read_volumes(json, spec->shape.volumes, error) || !read_analyses(json, spec->analyses, error))
        return false;
    spec->shape.port = spec->health_port;
    spec->shape.agent = spec->health_agent;
    *ret = g_steal_pointer(&spec);
    return true;
}
