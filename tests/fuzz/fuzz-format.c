/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: the layout of HCL text. Only blanks change: what comes out parses, has the same lines but for blanks, and a file of values or a
 * template in JSON is read, or refused, without more ado.
 */
#include "base/error.h"
#include "templates/templates.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void assert_only_blanks_differ(const char *before, size_t size, const char *after)
{
    for (const char *end = before + size;; before++, after++) {
        while (before < end && is_blank(*before))
            before++;
        while (is_blank(*after))
            after++;
        if (before == end || *before != *after)
            break;
        if (before + 1 == end)
            return;
    }
    g_assert_cmpint(*after, ==, '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GBytes) text = g_bytes_new(data, size), formatted = NULL;
    g_autofree char *once = NULL;
    g_autoptr(GError) error = NULL;

    (void)template_check_syntax("fuzz.pkr.json", text, NULL, NULL);
    if (!template_format("fuzz.pkr.hcl", text, NULL, &once, NULL))
        return 0;
    assert_only_blanks_differ((const char *)data, size, once);
    formatted = g_bytes_new(once, strlen(once));
    if (!template_check_syntax("fuzz.pkr.hcl", formatted, NULL, &error))
        g_error("formatted text does not parse: %s", error->message);
    return 0;
}
