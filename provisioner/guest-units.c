/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Units by their links: no program of the guest is asked, so a guest without systemctl answers too.
 */
#include "provisioner/guest-units.h"

#include "provisioner/guest-file.h"

#include <string.h>

static bool add_links(Guest *guest, const char *folder, GHashTable *units, GError **error)
{
    g_auto(GStrv) names = NULL;

    if (!guest->ops->list(guest, folder, &names, error))
        return false;
    for (char **name = names; *name; name++)
        g_hash_table_add(units, g_strdup(*name));
    return true;
}

bool guest_enabled_units(Guest *guest, GHashTable *units, GError **error)
{
    static const char systemd[] = "/etc/systemd/system", runlevel[] = "/etc/rc2.d";
    g_auto(GStrv) folders = NULL;
    char type;

    if (!guest_type(guest, systemd, &type, error) ||
        (type == 'd' && !guest->ops->list(guest, systemd, &folders, error)))
        return false;
    for (char **name = folders; name && *name; name++) {
        g_autofree char *path = g_build_filename(systemd, *name, NULL);
        if ((g_str_has_suffix(*name, ".wants") || g_str_has_suffix(*name, ".requires")) &&
            !add_links(guest, path, units, error))
            return false;
    }
    return !guest_type(guest, runlevel, &type, error)
               ? false
               : type != 'd' || add_links(guest, runlevel, units, error);
}

bool guest_unit_is_enabled(GHashTable *units, const char *name)
{
    g_autofree char *service = strchr(name, '.') ? g_strdup(name) : g_strconcat(name, ".service", NULL);
    GHashTableIter iter;
    gpointer key;

    if (g_hash_table_contains(units, service))
        return true;
    g_hash_table_iter_init(&iter, units);
    while (g_hash_table_iter_next(&iter, &key, NULL)) { /* S01nginx */
        const char *link = key;
        if (link[0] == 'S' && g_ascii_isdigit(link[1]) && g_ascii_isdigit(link[2]) &&
            strcmp(link + 3, name) == 0)
            return true;
    }
    return false;
}

static void tell(const ProvisionerHost *host, const char *before, GPtrArray *names)
{
    g_autofree char *list = NULL, *line = NULL;

    if (!names->len)
        return;
    g_ptr_array_add(names, NULL);
    list = g_strjoinv(", ", (char **)names->pdata);
    line = g_strconcat(before, list, NULL);
    host->say(line, false, host->arg);
}

bool guest_units_tell(Guest *guest, GHashTable *names, bool idle, const ProvisionerHost *host, GError **error)
{
    g_autoptr(GHashTable) enabled = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GList) all = g_list_sort(g_hash_table_get_keys(names), (GCompareFunc)strcmp);
    g_autoptr(GPtrArray) boot = g_ptr_array_new(), never = g_ptr_array_new();

    if (!all)
        return true;
    if (!guest_enabled_units(guest, enabled, error))
        return false;
    for (const GList *at = all; at; at = at->next)
        g_ptr_array_add(guest_unit_is_enabled(enabled, at->data) ? boot : never, at->data);
    tell(host, "at boot: ", boot);
    if (idle)
        tell(host, "asked to start, but not enabled, so no boot starts it: ", never);
    return true;
}
