/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provenance: who, when, where and from what, for one published set.
 */
#include "baker/provenance.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mask.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define INPUT_MAX (64u << 20)

static void set_text(json_t *object, const char *key, const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text ? text : "", -1);

    json_object_set_new(object, key, json_string(valid));
}

json_t *provenance_make(const TemplateBuild *build, const json_t *identity, int64_t epoch, const json_t *steps)
{
    json_t *provenance = json_object();
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *when = g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
    struct utsname host = {0};
    const struct passwd *user = getpwuid(getuid());

    (void)uname(&host);
    set_text(provenance, "built_at", when);
    set_text(provenance, "host", host.nodename);
    set_text(provenance, "kernel", host.release);
    set_text(provenance, "arch", host.machine);
    set_text(provenance, "user", user ? user->pw_name : NULL);
    set_text(provenance, "build", build->name);
    set_text(provenance, "source_type", build->source->type);
    json_object_set_new(provenance, "source_date_epoch", json_integer(epoch));
    json_object_set_new(provenance, "source", json_deep_copy(identity));
    json_object_set_new(provenance, "steps", json_deep_copy(steps));
    return provenance;
}

bool provenance_keep_inputs(Store *store, Template *template, GHashTable **ret, GError **error)
{
    g_autoptr(GHashTable) kept = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    GHashTableIter iter;
    gpointer path;

    g_hash_table_iter_init(&iter, template_files(template));
    while (g_hash_table_iter_next(&iter, &path, NULL)) {
        g_autoptr(GBytes) bytes = NULL;
        Digest *digest = g_new0(Digest, 1);
        gsize size;
        gconstpointer data;

        g_hash_table_insert(kept, g_strdup(path), digest);
        if (!file_load(AT_FDCWD, path, INPUT_MAX, &bytes, error))
            return false;
        data = g_bytes_get_data(bytes, &size);
        if (mask_active() && !memchr(data, '\0', size)) { /* a file of values may hold secret ones */
            g_autofree char *text = g_strndup(data, size), *masked = mask_text(text);

            g_bytes_unref(bytes);
            bytes = g_bytes_new(masked, strlen(masked));
            data = g_bytes_get_data(bytes, &size);
        }
        if (!store_blob_put(store, data, size, digest, error))
            return false;
    }
    *ret = g_steal_pointer(&kept);
    return true;
}
