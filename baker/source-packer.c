/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packer's schemas know over a hundred arguments for the machine that is booted, watched and typed at. They are accepted by name and type, and told in one
 * line, so that a template bakes as it stands and nobody wonders what became of them.
 */
#include "baker/source-packer.h"

#include "base/error.h"
#include "base/gotemplate.h"
#include "base/log.h"
#include "base/units.h"

#include <string.h>

/* --- types --- */

static bool is_scalar(const json_t *value)
{
    return json_is_string(value) || json_is_number(value) || json_is_boolean(value);
}

static bool is_number(const json_t *value)
{
    const char *text = json_string_value(value);
    char *end;

    if (!text)
        return json_is_number(value);
    (void)g_ascii_strtod(text, &end);
    return *text && !*end;
}

static bool is_bool(const json_t *value)
{
    const char *text = json_string_value(value);

    return text ? strcmp(text, "true") == 0 || strcmp(text, "false") == 0 : json_is_boolean(value);
}

static bool is_list(const json_t *value, bool (*is_item)(const json_t *))
{
    json_t *one;
    size_t i;

    json_array_foreach ((json_t *)value, i, one)
        if (!is_item(one) && !json_is_null(one))
            return false;
    return json_is_array(value);
}

static bool is_texts(const json_t *value)
{
    return is_list(value, is_scalar);
}

static bool is_lists(const json_t *value)
{
    return is_list(value, is_texts);
}

static bool is_map(const json_t *value)
{
    const char *key;
    json_t *one;

    json_object_foreach ((json_t *)value, key, one)
        if (!is_scalar(one))
            return false;
    return json_is_object(value);
}

static bool is_block(const json_t *value)
{
    return json_is_array(value) || json_is_object(value);
}

static const struct {
    bool (*fits)(const json_t *value);
    const char *name;
} types[] = {
    [PACKER_TEXT] = {is_scalar, "text"},
    [PACKER_NUMBER] = {is_number, "a number"},
    [PACKER_BOOL] = {is_bool, "true or false"},
    [PACKER_TEXTS] = {is_texts, "a list of texts"},
    [PACKER_MAP] = {is_map, "an object of texts"},
    [PACKER_LISTS] = {is_lists, "a list of lists of texts"},
    [PACKER_BLOCK] = {is_block, "a block"},
};

bool packer_check(const json_t *args, const PackerArgument *arguments, const char **ret_argument, GError **error)
{
    for (; arguments->name; arguments++) {
        const json_t *value = json_object_get(args, arguments->name);

        if (!value || json_is_null(value) || types[arguments->type].fits(value))
            continue;
        *ret_argument = arguments->name;
        return fail_code(error, KILN_ERROR_USAGE, "'%s' is %s", arguments->name, types[arguments->type].name);
    }
    return true;
}

bool packer_given(const json_t *args, const char *name)
{
    const json_t *value = json_object_get(args, name);

    return value && !json_is_null(value) && !(json_is_string(value) && !*json_string_value(value));
}

bool packer_check_communicator(const json_t *args, const char *otherwise, const char **ret_argument, GError **error)
{
    static const char *const known[] = {"none", "ssh", "winrm", "docker", "dockerWindowsContainer", NULL};
    g_autofree char *given = packer_raw(args, "communicator");
    const char *type = given && *given ? given : otherwise, *needed;

    *ret_argument = "communicator";
    if (!g_strv_contains(known, type))
        return fail_code(error, KILN_ERROR_USAGE, "there is no communicator \"%s\"; there are ssh, winrm and none", type);
    needed = strcmp(type, "ssh") == 0 ? "ssh_username" : strcmp(type, "winrm") == 0 ? "winrm_username" : NULL;
    if (needed && !packer_given(args, needed)) {
        *ret_argument = NULL;
        return fail_code(error, KILN_ERROR_USAGE, "an %s must be specified, or communicator = \"none\"", needed);
    }
    *ret_argument = NULL;
    return true;
}

static bool is_among(const PackerReason *reason, const char *name)
{
    g_autofree char *padded = g_strdup_printf(" %s ", name);

    return reason->names && strstr(reason->names, padded);
}

static const PackerReason *reason_of(const PackerReason *reasons, const char *name)
{
    while (reasons->names && !is_among(reasons, name))
        reasons++;
    return reasons; /* the empty one: that of the rest */
}

static void tell_those(const SourceContext *context, const json_t *args, const PackerArgument *arguments, const PackerReason *reasons, const PackerReason *reason,
                       const char *why)
{
    g_autoptr(GString) list = g_string_new(NULL);

    for (; arguments->name; arguments++)
        if (!arguments->used && packer_given(args, arguments->name) && reason_of(reasons, arguments->name) == reason)
            g_string_append_printf(list, "%s%s", list->len ? ", " : "", arguments->name);
    if (list->len)
        log_info("    %s: without meaning here, as %s: %s", context->name, why, list->str);
}

void packer_tell_unused(const SourceContext *context, const json_t *args, const PackerArgument *arguments, const char *why, const PackerReason *reasons)
{
    const PackerReason *reason = reasons;

    for (; reason->names; reason++)
        tell_those(context, args, arguments, reasons, reason, reason->why);
    tell_those(context, args, arguments, reasons, reason, why);
}

/* --- texts --- */

char *packer_raw(const json_t *args, const char *name)
{
    const json_t *value = json_object_get(args, name);

    if (json_is_string(value))
        return g_strdup(json_string_value(value));
    if (json_is_boolean(value))
        return g_strdup(json_is_true(value) ? "true" : "false");
    return json_is_number(value) ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
}

bool packer_bool(const json_t *args, const char *name)
{
    g_autofree char *text = packer_raw(args, name);

    return g_strcmp0(text, "true") == 0;
}

bool packer_expand(const SourceContext *context, const char *text, char **ret, GError **error)
{
    g_autoptr(GHashTable) values = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);
    g_autofree char *cwd = NULL;

    if (!strstr(text, "{{")) {
        *ret = g_strdup(text);
        return true;
    }
    cwd = g_get_current_dir();
    g_hash_table_insert(values, (char *)"build_name", g_strdup(context->build_name));
    g_hash_table_insert(values, (char *)"name", g_strdup(context->build_name));
    g_hash_table_insert(values, (char *)"template_dir", g_strdup(context->template_dir));
    g_hash_table_insert(values, (char *)"pwd", g_steal_pointer(&cwd));
    g_hash_table_insert(values, (char *)"timestamp", g_strdup_printf("%" G_GINT64_FORMAT, MAX(context->epoch, 0)));
    /* There is no server to ask: what is served is read from where it is. */
    g_hash_table_insert(values, (char *)"HTTPIP", g_strdup("packer"));
    g_hash_table_insert(values, (char *)"HTTPPort", g_strdup("80"));
    g_hash_table_insert(values, (char *)"Name", g_strdup(context->build_name));
    g_hash_table_insert(values, (char *)"SSHPublicKey", g_strdup(""));
    return gotemplate_expand(text, values, ret, error);
}

bool packer_text(const SourceContext *context, const json_t *args, const char *name, const char *otherwise, char **ret, GError **error)
{
    g_autofree char *text = packer_raw(args, name);

    if (!text || !*text) {
        *ret = g_strdup(otherwise);
        return true;
    }
    return packer_expand(context, text, ret, error) || fail_prefix(error, "'%s'", name);
}

/* --- files --- */

bool packer_deliver(Store *store, GPtrArray *files, const char *path, const char *what, OutputMakeFn *make, void *arg, GError **error)
{
    bool written;

    if (!output_make(store, path, what, make, arg, &written, error))
        return false;
    if (written)
        log_info("    wrote %s", path);
    g_ptr_array_add(files, g_strdup(path));
    return true;
}
