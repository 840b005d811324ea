/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: a group file's text, or (when it begins with '{') a spec as a journal keeps it. Whatever it says, there is a group or a
 * message; and what became a spec comes back the same from its JSON.
 */
#include "deploy/deploy.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_round_trip(const GroupSpec *spec)
{
    g_autoptr(json_t) json = group_spec_json(spec), again = NULL;
    g_autofree char *text = json_canonical(json), *text_again = NULL;
    g_autoptr(GroupSpec) back = NULL;
    g_autoptr(GError) error = NULL;

    if (!group_spec_from_json(json, &back, &error))
        g_error("a spec is not read back: %s", error->message);
    again = group_spec_json(back);
    text_again = json_canonical(again);
    g_assert_cmpstr(text, ==, text_again);
}

static void read_spec(const uint8_t *data, size_t size)
{
    g_autoptr(json_t) json = NULL;
    g_autoptr(GroupSpec) spec = NULL;

    if (json_parse((const char *)data, size, 1 << 20, "spec", &json, NULL) && group_spec_from_json(json, &spec, NULL))
        check_round_trip(spec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GBytes) text = g_bytes_new(data, size);
    TemplateOptions options = {.input = text};
    g_autoptr(GPtrArray) files = NULL;

    if (size > 0 && data[0] == '{')
        read_spec(data, size);
    else if (group_load_with("fuzz.group.hcl", &options, &files, NULL))
        for (guint i = 0; i < files->len; i++)
            check_round_trip(((GroupFile *)files->pdata[i])->spec);
    return 0;
}
