/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `kiln deploy drift` sees of one overlay: overlay-probe STORE REF OVERLAY BASE prints a line "WHAT<TAB>PATH" for each entry, with
 * "ignored " in front of those that the shipped list knows. tests/long/60-drift-guest.sh uses it.
 */
#include "deploy/drift-ignore.h"
#include "deploy/overlay.h"

#include <stdio.h>
#include <sys/resource.h>

static bool probe(char **argv, GError **error)
{
    g_autoptr(Store) store = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GPtrArray) entries = NULL;
    GroupSpec spec = {.name = NULL};
    struct rusage usage;
    gint64 start;

    if (!store_open(argv[1], STORE_OPEN_READONLY, &store, error) || !store_resolve(store, argv[2], "disk", &image, error))
        return false;
    start = g_get_monotonic_time();
    if (!overlay_changes(store, argv[3], argv[4], image, &entries, error))
        return false;
    (void)getrusage(RUSAGE_SELF, &usage);
    fprintf(stderr, "%u entries, %.3f s, %ld KiB\n", entries->len, (double)(g_get_monotonic_time() - start) / 1e6, usage.ru_maxrss);
    for (guint i = 0; i < entries->len; i++) {
        const DriftEntry *entry = g_ptr_array_index(entries, i);

        printf("%s%s\t%s\n", drift_ignored(&spec, entry->path) ? "ignored " : "", entry->what, entry->path);
    }
    return true;
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;

    if (argc != 5) {
        fprintf(stderr, "usage: overlay-probe STORE REF OVERLAY BASE\n");
        return 2;
    }
    if (!probe(argv, &error)) {
        fprintf(stderr, "overlay-probe: %s\n", error->message);
        return 1;
    }
    return 0;
}
