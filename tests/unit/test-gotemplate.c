/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/gotemplate.c: what Packer's options need of Go's templates.
 */
#include "base/gotemplate.h"

#include <string.h>

static char *expand(const char *text, GError **error)
{
    g_autoptr(GHashTable) values = g_hash_table_new(g_str_hash, g_str_equal);
    char *out = NULL;

    g_hash_table_insert(values, (void *)"Path", (void *)"/tmp/s.sh");
    g_hash_table_insert(values, (void *)"Vars", (void *)"A='1' ");
    g_hash_table_insert(values, (void *)"Empty", (void *)"");
    g_hash_table_insert(values, (void *)"build_name", (void *)"web server");
    g_hash_table_insert(values, (void *)"timestamp", (void *)"1700000000");
    return gotemplate_expand(text, values, &out, error) ? out : NULL;
}

static void same(const char *text, const char *want)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *out = expand(text, &error);

    g_assert_no_error(error);
    g_assert_cmpstr(out, ==, want);
}

static void refused(const char *text, const char *part)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *out = expand(text, &error);

    g_assert_null(out);
    g_assert_nonnull(error);
    if (!strstr(error->message, part))
        g_error("'%s' says '%s', not '%s'", text, error->message, part);
}

static void test_fields(void)
{
    same("plain } text", "plain } text");
    same("chmod +x {{.Path}}; {{ .Vars }} {{.Path}}", "chmod +x /tmp/s.sh; A='1'  /tmp/s.sh");
    same("{{build_name}}-{{ timestamp }}", "web server-1700000000");
    same("a {{- .Path -}} b", "a/tmp/s.shb");
    same("a  {{- /* why */ -}}  b", "ab");
    same("{{`{{.Id}}`}} {{ \"}}\\\"\" }}", "{{.Id}} }}\"");
}

static void test_functions(void)
{
    same("{{ upper build_name }}", "WEB SERVER");
    same("{{ build_name | clean_resource_name | upper }}", "WEB-SERVER");
    same("{{ replace \"e\" \"3\" 1 build_name }} {{ replace_all \"e\" \"3\" build_name }}",
         "w3b server w3b s3rv3r");
    same("{{ split build_name \" \" 1 }}", "server");
    same("{{ isotime }} {{ isotime \"2006-01-02 Jan 03:04PM\" }}",
         "2023-11-14T22:13:20Z 2023-11-14 Nov 10:13PM");
}

static void test_conditions(void)
{
    same("{{ if .Vars }}yes{{ else }}no{{ end }}", "yes");
    same("{{ if .Empty }}yes{{ else if eq .Path \"/tmp/s.sh\" }}second{{ else }}no{{ end }}", "second");
    same("{{ if ne .Path \"x\" }}{{ if not .Empty }}both{{ end }}{{ end }}", "both");
    same("{{ if and .Vars .Empty }}a{{ end }}{{ if or .Vars .Empty }}o{{ end }}", "o");
    same("{{ if .Empty }}{{ .Unknown }}{{ end }}ok", "ok"); /* what is off is not looked at */
    same("{{ if (eq (lower \"A\") \"a\") }}nested{{ end }}", "nested");
}

static void test_mistakes(void)
{
    refused("{{ .Nope }}", ".Nope");
    refused("{{ nope }}", "nope");
    refused("{{ .Path", "without '}}'");
    refused("{{ if .Path }}x", "without {{ end }}");
    refused("{{ end }}", "without {{ if }}");
    refused("{{ else }}", "outside");
    refused("{{ }}", "empty");
    refused("{{ range .Path }}{{ end }}", "not supported");
    refused("{{ \"open }}", "without '}}'");
    refused("{{ upper }}", "takes 1 argument");
    refused("{{ split build_name \" \" 7 }}", "part number 7");
    refused("{{ build \"Host\" }}", "never boots");
    refused("{{ ((((((((((((((((((((((((((((((((((( }}", "too deeply");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/gotemplate/fields-and-literals-are-replaced", test_fields);
    g_test_add_func("/gotemplate/functions-are-packers", test_functions);
    g_test_add_func("/gotemplate/conditions-choose-a-branch", test_conditions);
    g_test_add_func("/gotemplate/mistakes-are-told", test_mistakes);
    return g_test_run();
}
