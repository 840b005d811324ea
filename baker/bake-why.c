/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparing records is pure: lists of names in, one sentence out. The order of the questions is the order in which
 * people can do something about the answer: their files first, kiln's own engine last.
 */
#include "baker/bake-why.h"

#include <string.h>

static json_t *digest_json(const json_t *value)
{
    Digest digest;
    char hex[DIGEST_HEX_SIZE];

    json_digest(value, &digest);
    return json_string(digest_to_hex(&digest, hex));
}

static json_t *digests_of(json_t *object)
{
    json_t *ret = json_object(), *value;
    const char *name;

    json_object_foreach (object, name, value)
        json_object_set_new(ret, name, digest_json(value));
    return ret;
}

static json_t *variables(const json_t *env)
{
    json_t *ret = json_object(), *one;
    size_t i;

    json_array_foreach (env, i, one) {
        const char *text = json_string_value(one), *equals = strchr(text, '=');
        g_autofree char *name = g_strndup(text, equals ? (gsize)(equals - text) : strlen(text));

        json_object_set_new(ret, name, digest_json(one));
    }
    return ret;
}

static json_t *files(const json_t *inputs)
{
    json_t *ret = json_object(), *one;
    size_t i;

    json_array_foreach (inputs, i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));

        if (name)
            json_object_set_new(ret, name, json_pack("{s:O, s:O}", "digest", json_object_get(one, "digest"), "mode",
                                                     json_object_get(one, "mode")));
    }
    return ret;
}

static json_t *packages(const json_t *transaction)
{
    json_t *ret = json_object(), *one;
    size_t i;

    json_array_foreach (json_object_get(transaction, "install"), i, one)
        json_object_set(ret, json_string_value(json_object_get(one, "name")), json_object_get(one, "version"));
    json_array_foreach (json_object_get(transaction, "remove"), i, one)
        json_object_set_new(ret, json_string_value(json_object_get(one, "name")), json_string("removed"));
    return ret;
}

json_t *bake_why_record(const json_t *key, const char *type, const char *label, const json_t *transaction)
{
    static const char *const copied[] = {"engine", "profile", "content", "network"};
    json_t *record = json_object();

    json_object_set_new(record, "type", json_string(type));
    json_object_set_new(record, "label", json_string(label));
    for (size_t i = 0; i < G_N_ELEMENTS(copied); i++)
        json_object_set(record, copied[i], json_object_get(key, copied[i]));
    json_object_set_new(record, "args", digests_of(json_object_get(key, "args")));
    json_object_set_new(record, "env", variables(json_object_get(key, "env")));
    json_object_set_new(record, "files", files(json_object_get(key, "inputs")));
    json_object_set_new(record, "packages", packages(transaction));
    return record;
}

static bool same(const json_t *a, const json_t *b, const char *key)
{
    return json_equal(json_object_get(a, key), json_object_get(b, key));
}

static bool same_step(const json_t *a, const json_t *b)
{
    return same(a, b, "type") && same(a, b, "label");
}

/*
 * Steps keep their place unless some were put in or taken out before them: the nth of its type and label
 * is looked for then, with equal arguments if there is one.
 */
const json_t *bake_why_match(const json_t *before, const json_t *now, size_t index, size_t count)
{
    const json_t *record = json_array_get(now, index), *there = json_array_get(before, index), *one, *found = NULL;
    size_t i;

    if (there && same_step(there, record) && same(there, record, "args"))
        return there;
    json_array_foreach (before, i, one) {
        if (!same_step(one, record))
            continue;
        if (same(one, record, "args") && same(one, record, "files"))
            return one;
        if (!found && i >= index)
            found = one;
    }
    if (there && same_step(there, record) && json_array_size(before) == count)
        return there;
    return json_array_size(before) >= count ? found : NULL;
}

/* The first name whose value is not the same on both sides. */
static const char *first_difference(const json_t *before, const json_t *now)
{
    const char *name;
    json_t *value;

    json_object_foreach ((json_t *)now, name, value)
        if (!json_equal(value, json_object_get(before, name)))
            return name;
    json_object_foreach ((json_t *)before, name, value)
        if (!json_object_get(now, name))
            return name;
    return NULL;
}

static char *file_differs(const json_t *before, const json_t *now, const char *name)
{
    const json_t *a = json_object_get(before, name), *b = json_object_get(now, name);
    const char *what = !a ? "new" : !b ? "gone" : json_equal(json_object_get(a, "digest"), json_object_get(b, "digest"))
                                                       ? "mode" : "content";

    return g_strdup_printf("file %s: %s", name, what);
}

static char *package_differs(const json_t *before, const json_t *now, const char *name)
{
    const char *a = json_string_value(json_object_get(before, name)), *b = json_string_value(json_object_get(now, name));

    if (a && b)
        return g_strdup_printf("package %s %s -> %s", name, a, b);
    return g_strdup_printf("package %s %s", name, a ? "no longer changes" : b);
}

char *bake_why_differs(const json_t *before, const json_t *now)
{
    const char *name = first_difference(json_object_get(before, "files"), json_object_get(now, "files"));

    if (name)
        return file_differs(json_object_get(before, "files"), json_object_get(now, "files"), name);
    name = first_difference(json_object_get(before, "packages"), json_object_get(now, "packages"));
    if (name)
        return package_differs(json_object_get(before, "packages"), json_object_get(now, "packages"), name);
    name = first_difference(json_object_get(before, "args"), json_object_get(now, "args"));
    if (name)
        return g_strdup_printf("argument %s", name);
    name = first_difference(json_object_get(before, "env"), json_object_get(now, "env"));
    if (name)
        return g_strdup_printf("environment %s", name);
    if (!same(before, now, "network"))
        return g_strdup_printf("network: %s", json_is_true(json_object_get(now, "network")) ? "off -> on" : "on -> off");
    if (!same(before, now, "content"))
        return g_strdup("the root it starts from");
    if (!same(before, now, "engine"))
        return g_strdup("this version of kiln");
    if (!same(before, now, "profile"))
        return g_strdup_printf("the appliance: %s -> %s", json_string_value(json_object_get(before, "profile")),
                               json_string_value(json_object_get(now, "profile")));
    return NULL;
}
