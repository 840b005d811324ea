/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: a template's text, in HCL or (when it begins with '{') its JSON form, as anyone may hand it to validate or to an
 * editor's fmt. Whatever it says, there is a template or a message; and what parses is formatted to what parses, where a second
 * time changes nothing.
 */
#include "base/error.h"
#include "templates/templates.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_format(GBytes *text)
{
    g_autofree char *once = NULL, *twice = NULL;
    g_autoptr(GBytes) formatted = NULL;
    g_autoptr(GError) error = NULL;

    if (!template_format("fuzz.pkr.hcl", text, NULL, &once, NULL))
        return;
    formatted = g_bytes_new(once, strlen(once));
    if (!template_format("fuzz.pkr.hcl", formatted, NULL, &twice, &error))
        g_error("formatted text does not parse: %s", error->message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GBytes) text = g_bytes_new(data, size);
    g_autoptr(json_t) diagnostics = json_array(), about = NULL;
    TemplateOptions options = { .allow_unset = true, .input = text, .diagnostics = diagnostics };
    g_autoptr(Template) template = NULL;

    if (size > 0 && data[0] == '{') {
        (void)template_load("fuzz.pkr.json", &options, &template, NULL);
    } else {
        check_format(text);
        (void)template_load("fuzz.pkr.hcl", &options, &template, NULL);
    }
    if (template)
        about = template_describe(template);
    return 0;
}
