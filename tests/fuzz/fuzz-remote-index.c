/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: places of bytes as an index of a remote says them.
 */
#include "store/remote-index.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_segment(const RemoteSegmentPlace *place)
{
    for (guint i = 0; place->tables && i < place->tables->len; i++) {
        g_autofree char *key = remote_table_key(&place->segment, &g_array_index(place->tables, RemoteTablePlace, i).table, place->cache);

        if (strlen(key) > REMOTE_KEY_MAX)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(json_t) json = NULL;
    g_autoptr(RemoteUnit) unit = NULL;
    GHashTableIter iter;
    gpointer place;

    if (!json_parse((const char *)data, size, 1 << 20, "fuzz", &json, NULL) || !remote_unit_parse(json, &unit, NULL))
        return 0;
    g_hash_table_iter_init(&iter, unit->segments);
    while (g_hash_table_iter_next(&iter, NULL, &place))
        check_segment(place);
    return 0;
}
