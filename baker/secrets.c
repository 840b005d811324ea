/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where secret values come from, and where they are not allowed to go.
 */
#include "baker/secrets.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mask.h"

#include <fcntl.h>
#include <string.h>

#define SECRET_MAX (1u << 20)

typedef struct Secret {
    char *name;  /* NULL: a sensitive value */
    char *title;
    GBytes *value;
    GPtrArray *forms; /* of GBytes*: what is looked for in blocks */
} Secret;

struct Secrets {
    GPtrArray *blocks;    /* of Secret* */
    GPtrArray *sensitive; /* of Secret* */
};

static void secret_free(gpointer data)
{
    Secret *secret = data;

    g_free(secret->name);
    g_free(secret->title);
    g_bytes_unref(secret->value);
    g_ptr_array_unref(secret->forms);
    g_free(secret);
}

static void add(GPtrArray *list, const char *name, GBytes *value)
{
    Secret *secret = g_new0(Secret, 1);
    gsize size;
    const char *data = g_bytes_get_data(value, &size);

    /* A file's final newline is no part of what is printed or stored elsewhere. */
    while (size > 0 && (data[size - 1] == '\n' || data[size - 1] == '\r'))
        size--;
    secret->name = g_strdup(name);
    secret->title = name ? g_strdup_printf("secret '%s'", name) : g_strdup("a sensitive value");
    secret->value = g_bytes_ref(value);
    secret->forms = mask_file_forms(data, size, SECRETS_SCAN_MIN);
    mask_add(data, size);
    g_ptr_array_add(list, secret);
}

static bool read_value(const TemplateSecret *secret, const char *dir, GBytes **ret, GError **error)
{
    const char *text = secret->env ? g_getenv(secret->env) : NULL;
    g_autofree char *path = NULL;

    if (secret->env) {
        *ret = text ? g_bytes_new(text, strlen(text)) : NULL;
        return text || fail_code(error, KILN_ERROR_USAGE, "secret '%s': the environment variable %s is not set", secret->name, secret->env);
    }
    path = g_path_is_absolute(secret->file) ? g_strdup(secret->file) : g_build_filename(dir, secret->file, NULL);
    return file_load(AT_FDCWD, path, SECRET_MAX, ret, error) || fail_prefix(error, "secret '%s'", secret->name);
}

static bool is_file_name(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/') && strlen(name) < 200;
}

static bool load_blocks(Secrets *secrets, Template *template, const TemplateBuild *build, GError **error)
{
    for (guint i = 0; i < build->secrets->len; i++) {
        const TemplateSecret *secret = build->secrets->pdata[i];
        g_autoptr(GBytes) value = NULL;

        if (!is_file_name(secret->name))
            return fail_code(error, KILN_ERROR_USAGE, "secret '%s': its name becomes a file in %s, without '/' and no '.' in front",
                             secret->name, SECRETS_FOLDER);
        if (!read_value(secret, template_dir(template), &value, error))
            return false;
        if (g_bytes_get_size(value) == 0)
            return fail_code(error, KILN_ERROR_USAGE, "secret '%s' is empty", secret->name);
        add(secrets->blocks, secret->name, value);
    }
    return true;
}

bool secrets_load(Template *template, const TemplateBuild *build, Secrets **ret, GError **error)
{
    g_autoptr(Secrets) secrets = g_new0(Secrets, 1);
    g_autoptr(GPtrArray) values = template_sensitive(template);

    secrets->blocks = g_ptr_array_new_with_free_func(secret_free);
    secrets->sensitive = g_ptr_array_new_with_free_func(secret_free);
    for (guint i = 0; i < values->len; i++) {
        g_autoptr(GBytes) value = g_bytes_new(values->pdata[i], strlen(values->pdata[i]));

        add(secrets->sensitive, NULL, value);
    }
    if (!load_blocks(secrets, template, build, error))
        return false;
    *ret = g_steal_pointer(&secrets);
    return true;
}

void secrets_free(Secrets *secrets)
{
    if (!secrets)
        return;
    g_ptr_array_unref(secrets->blocks);
    g_ptr_array_unref(secrets->sensitive);
    g_free(secrets);
}

bool secrets_any(const Secrets *secrets)
{
    return secrets->blocks->len + secrets->sensitive->len > 0;
}

size_t secrets_count(const Secrets *secrets)
{
    return secrets->blocks->len;
}

const char *secrets_name(const Secrets *secrets, size_t index)
{
    return ((Secret *)secrets->blocks->pdata[index])->name;
}

GBytes *secrets_value(const Secrets *secrets, size_t index)
{
    return ((Secret *)secrets->blocks->pdata[index])->value;
}

json_t *secrets_mask_json(const Secrets *secrets, const json_t *value)
{
    json_t *ret, *one;
    const char *key;
    size_t i;

    if (!secrets_any(secrets))
        return json_deep_copy(value);
    if (json_is_string(value)) {
        g_autofree char *text = mask_text(json_string_value(value));

        return json_string_nocheck(text);
    }
    if (json_is_array(value)) {
        ret = json_array();
        json_array_foreach (value, i, one)
            json_array_append_new(ret, secrets_mask_json(secrets, one));
        return ret;
    }
    if (json_is_object(value)) {
        ret = json_object();
        json_object_foreach ((json_t *)value, key, one)
            json_object_set_new(ret, key, secrets_mask_json(secrets, one));
        return ret;
    }
    return json_deep_copy(value);
}

static const char *find_in(const GPtrArray *list, const void *data, size_t size)
{
    for (guint i = 0; i < list->len; i++) {
        const Secret *secret = list->pdata[i];

        for (guint j = 0; j < secret->forms->len; j++)
            if (memmem(data, size, g_bytes_get_data(secret->forms->pdata[j], NULL), g_bytes_get_size(secret->forms->pdata[j])))
                return secret->title;
    }
    return NULL;
}

const char *secrets_find(const Secrets *secrets, const void *data, size_t size)
{
    const char *found = find_in(secrets->blocks, data, size);

    return found ? found : find_in(secrets->sensitive, data, size);
}
