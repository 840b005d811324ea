/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making seeds with a host tool, in a private folder: user data may hold secrets.
 */
#include "deploy/seed-iso.h"

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"

#include <fcntl.h>
#include <string.h>

char *seed_network_config(const SeedSpec *spec)
{
    GString *text = g_string_new("version: 2\nethernets:\n  kiln0:\n");
    bool six = strchr(spec->address, ':') != NULL;

    g_string_append_printf(text, "    match: {macaddress: \"%s\"}\n    addresses: [\"%s/%u\"]\n", spec->mac, spec->address,
                           spec->prefix_length > 0 ? spec->prefix_length : six ? 64 : 24);
    if (spec->gateway)
        g_string_append_printf(text, "    gateway%c: \"%s\"\n", strchr(spec->gateway, ':') ? '6' : '4', spec->gateway);
    return g_string_free(text, FALSE);
}

static bool put(const char *folder, const char *name, const char *text, GError **error)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);

    return file_replace(AT_FDCWD, path, text, strlen(text), 0600, FILE_SYNC_NO, error);
}

static bool write_parts(const char *folder, const SeedSpec *spec, GError **error)
{
    g_autofree char *meta = g_strdup_printf("instance-id: %s\nlocal-hostname: %s\n", spec->name, spec->name);
    g_autofree char *network = spec->address ? seed_network_config(spec) : NULL;

    return put(folder, "meta-data", meta, error) && put(folder, "user-data", spec->user_data ? spec->user_data : "#cloud-config\n{}\n", error) &&
           (!network || put(folder, "network-config", network, error));
}

static bool run_tool(const char *folder, const char *iso, GError **error)
{
    g_autofree char *ignored = NULL;
    const char *const genisoimage[] = {"genisoimage", "-quiet", "-output", iso, "-volid", "cidata", "-joliet", "-rock", folder, NULL};
    const char *const xorriso[] = {"xorriso", "-as", "mkisofs", "-quiet", "-o", iso, "-V", "cidata", "-J", "-r", folder, NULL};

    if (process_have("genisoimage"))
        return process_capture(genisoimage, 4096, &ignored, error);
    if (process_have("xorriso"))
        return process_capture(xorriso, 4096, &ignored, error);
    return fail(error, "user data and fixed addresses need genisoimage or xorriso, and neither is installed");
}

bool seed_iso(const SeedSpec *spec, GBytes **ret, GError **error)
{
    g_autofree char *folder = NULL, *parts = NULL, *iso = NULL;
    bool ok;

    if (!file_make_short_tmpdir(&folder, error))
        return false;
    parts = g_build_filename(folder, "parts", NULL);
    iso = g_build_filename(folder, "seed.iso", NULL);
    ok = file_make_dirs(parts, 0700, error) && write_parts(parts, spec, error) && run_tool(parts, iso, error) &&
         file_load(AT_FDCWD, iso, SEED_MAX, ret, error);
    (void)file_remove_tree(AT_FDCWD, folder, NULL);
    return ok || fail_prefix(error, "seed of %s", spec->name);
}
