/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: seeds for cloud-init, in all their forms, and the YAML in them. What comes out is JSON that could be written again, and a script ends its lines.
 */
#include "provisioner/seed.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size), *config = g_strconcat("#cloud-config\n", text, NULL), *script = NULL, *again = NULL;
    g_autoptr(Seed) whole = NULL, seed = NULL;

    (void)seed_parse(text, NULL, text, &whole, NULL);
    if (!seed_parse(config, NULL, NULL, &seed, NULL))
        return 0;
    again = json_canonical(seed->config);
    if (!again)
        abort();
    (void)seed_wants_network(seed);
    script = seed_script(json_object_get(seed->config, "runcmd"));
    if (script && script[strlen(script) - 1] != '\n')
        abort();
    return 0;
}
