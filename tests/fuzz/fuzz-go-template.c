/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: a text with {{ }} in it, as options of steps may hold. There is a text or a message, and text without {{ stays as it is.
 */
#include "base/error.h"
#include "base/gotemplate.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size), *out = NULL;
    g_autoptr(GHashTable) values = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GError) error = NULL;

    g_hash_table_insert(values, (void *)"Path", (void *)"/tmp/s.sh");
    g_hash_table_insert(values, (void *)"Vars", (void *)"A='1' ");
    g_hash_table_insert(values, (void *)"Empty", (void *)"");
    g_hash_table_insert(values, (void *)"build_name", (void *)"web server");
    g_hash_table_insert(values, (void *)"timestamp", (void *)"1700000000");
    if (!gotemplate_expand(text, values, &out, &error) && !error)
        g_error("no text and no message");
    if (!strstr(text, "{{"))
        g_assert_cmpstr(out, ==, text);
    return 0;
}
