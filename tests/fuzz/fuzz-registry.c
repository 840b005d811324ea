/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzer: what registries and the files about them say. The first byte chooses: a name, a challenge, a login file, registries.conf, a segment's index. */
#include "base/json.h"
#include "store/registry-auth.h"
#include "store/registry-hosts.h"
#include "store/registry.h"
#include "store/segment-index.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is accepted must be accepted again as it is written out. */
static void try_name(const char *text)
{
    g_auto(RegistryRef) ref = {0}, again = {0};
    g_autofree char *place = NULL, *whole = NULL;

    if (!registry_ref_parse(text, &ref, NULL))
        return;
    place = registry_ref_place(&ref);
    whole = g_strconcat(REGISTRY_SCHEME, place, ref.tag ? ":" : "", ref.tag ? ref.tag : "", NULL);
    if (!registry_ref_parse(whole, &again, NULL) || strcmp(again.host, ref.host) != 0 || strcmp(again.repository, ref.repository) != 0)
        abort();
}

static void try_login(const char *text, size_t size)
{
    g_autoptr(json_t) config = NULL;
    g_auto(RegistryLogin) login = {0};
    g_autofree char *helper = NULL;

    if (json_parse(text, size, 1u << 20, "fuzz", &config, NULL))
        (void)registry_login_in(config, "quay.io", "team/app", &login, &helper);
}

static void try_index(const uint8_t *data, size_t size)
{
    g_autoptr(SegmentIndex) index = NULL;
    g_autoptr(GBytes) bytes = NULL;

    if (!segment_index_decode(data, size, &index, NULL))
        return;
    for (uint32_t position = 0; position < 128; position++)
        (void)segment_index_hash(index, position);
    bytes = segment_index_encode(index);
    if (g_bytes_get_size(bytes) != size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GPtrArray) places = g_ptr_array_new_with_free_func(g_free);
    g_auto(RegistryChallenge) challenge = {0};
    g_autofree char *text = size ? g_strndup((const char *)data + 1, size - 1) : NULL;
    bool blocked;

    if (!text)
        return 0;
    switch (data[0] % 5) {
    case 0:
        try_name(text);
        break;
    case 1:
        registry_challenge_parse(text, &challenge);
        break;
    case 2:
        try_login(text, strlen(text));
        break;
    case 3:
        registry_places_in(text, "docker.io/library/debian", places, &blocked);
        break;
    default:
        try_index(data + 1, size - 1);
    }
    return 0;
}
