/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates: what a .pkr.hcl becomes, and how mistakes in it are told.
 */
#include "base/error.h"
#include "base/file.h"
#include "templates/templates.h"

#include <string.h>

#define SOURCE "source \"null\" \"a\" {}\n"
#define BUILD "build { sources = [\"source.null.a\"] }\n"

static Template *load(const char *text, const TemplateOptions *options)
{
    g_autoptr(GError) error = NULL;
    Template *t = NULL;

    g_assert_true(g_file_set_contents("t.pkr.hcl", text, -1, NULL));
    (void)template_load("t.pkr.hcl", options, &t, &error);
    g_assert_no_error(error);
    g_assert_nonnull(t);
    return t;
}

static char *load_fails(const char *text, const TemplateOptions *options)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Template) t = NULL;

    g_assert_true(g_file_set_contents("t.pkr.hcl", text, -1, NULL));
    g_assert_false(template_load("t.pkr.hcl", options, &t, &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_USAGE);
    return g_strdup(error->message);
}

static void assert_json(const json_t *json, const char *expected)
{
    g_autofree char *text = json_canonical(json);

    g_assert_cmpstr(text, ==, expected);
}

static TemplateBuild *build_at(Template *t, guint i)
{
    g_assert_cmpuint(template_builds(t)->len, >, i);
    return template_builds(t)->pdata[i];
}

static TemplateBlock *provisioner_at(TemplateBuild *build, guint i)
{
    g_assert_cmpuint(build->provisioners->len, >, i);
    return build->provisioners->pdata[i];
}

/* --- what comes out --- */

static void test_whole(void)
{
    g_autoptr(Template) t = load("packer {\n  required_version = \">= 1.9\"\n  required_plugins {\n    x = {\n version = \"1\"\n source = \"example.org/o/s\"\n }\n  }\n}\n"
                                 "variable \"n\" {\n  type = number\n  default = 2\n}\n"
                                 "locals {\n  b = local.a + 1\n  a = var.n * 10\n}\n"
                                 "local \"c\" {\n  expression = \"c${local.b}\"\n}\n"
                                 "source \"bootstrap\" \"base\" {\n  suite = \"bookworm\"\n  size = \"${var.n}G\"\n  gone = null\n}\n"
                                 "build {\n  name = \"web\"\n  sources = [\"source.bootstrap.base\"]\n"
                                 "  provisioner \"shell\" {\n    name = \"first\"\n    inline = [\"echo ${local.c} ${source.name} ${source.type} ${build.name}\"]\n"
                                 "    network = true\n    timeout = \"5m\"\n    pause_before = \"1m30s\"\n    max_retries = 3\n"
                                 "    inputs = [\"*.txt\"]\n    refresh = \"24h\"\n    only_output = [\"disk\"]\n    continue_on_error = true\n  }\n"
                                 "  output \"disk\" {}\n  output \"oci\" {\n    expose = [80]\n    half = 0.5\n  }\n"
                                 "  post-processor \"manifest\" {}\n"
                                 "  post-processors {\n    post-processor \"compress\" {}\n    post-processor \"checksum\" { output = \"x\" }\n  }\n"
                                 "  error-cleanup-provisioner \"shell\" {}\n  secret \"key\" { env = \"KEY\" }\n"
                                 "  source_date_epoch = 5\n  volatile_paths = [\"/var/log/*\"]\n}\n",
                                 NULL);
    TemplateBuild *build = build_at(t, 0);
    TemplateBlock *shell = provisioner_at(build, 0);
    GPtrArray *chain;

    g_assert_cmpuint(template_builds(t)->len, ==, 1);
    g_assert_cmpstr(build->name, ==, "web");
    g_assert_cmpstr(build->build_name, ==, "base");
    g_assert_cmpstr(build->source->type, ==, "bootstrap");
    assert_json(build->source->args, "{\"size\":\"2G\",\"suite\":\"bookworm\"}");
    g_assert_cmpstr(shell->type, ==, "shell");
    g_assert_cmpstr(shell->name, ==, "first");
    assert_json(shell->args, "{\"inline\":[\"echo c21 base bootstrap web\"]}");
    g_assert_cmpint(shell->network, ==, 1);
    g_assert_cmpfloat(shell->timeout, ==, 300);
    g_assert_cmpfloat(shell->pause_before, ==, 90);
    g_assert_cmpint(shell->max_retries, ==, 3);
    g_assert_true(shell->continue_on_error);
    g_assert_cmpstr(shell->inputs[0], ==, "*.txt");
    g_assert_cmpstr(shell->refresh, ==, "24h");
    g_assert_cmpstr(shell->only_output[0], ==, "disk");
    g_assert_cmpuint(build->outputs->len, ==, 2);
    assert_json(((TemplateBlock *)build->outputs->pdata[1])->args, "{\"expose\":[80],\"half\":0.5}");
    g_assert_cmpuint(build->post_processors->len, ==, 2);
    chain = build->post_processors->pdata[1];
    g_assert_cmpuint(chain->len, ==, 2);
    assert_json(((TemplateBlock *)chain->pdata[1])->args, "{\"output\":\"x\"}");
    g_assert_cmpint(build->source_date_epoch, ==, 5);
    g_assert_cmpstr(build->volatile_paths[0], ==, "/var/log/*");
    g_assert_cmpstr(template_dir(t), ==, ".");
}

static void test_bare_labels(void)
{
    g_autoptr(Template) t = load("source null a {}\n" BUILD, NULL);

    g_assert_cmpstr(build_at(t, 0)->name, ==, "a");
}

static void test_nested(void)
{
    g_autoptr(Template) t = load("source \"x\" \"a\" {\n  disk {\n    size = 1\n  }\n  disk {\n    size = 2\n    inner {}\n  }\n"
                                 "  dynamic \"disk\" {\n    for_each = [3, 4]\n    content {\n      size = disk.value + disk.key\n    }\n  }\n}\n"
                                 "build { sources = [\"x.a\"] }\n",
                                 NULL);

    assert_json(build_at(t, 0)->source->args, "{\"disk\":[{\"size\":1},{\"inner\":[{}],\"size\":2},{\"size\":3},{\"size\":5}]}");
}

static void test_dynamic_provisioners(void)
{
    g_autoptr(Template) t = load(SOURCE "build {\n  sources = [\"source.null.a\"]\n  dynamic \"provisioner\" {\n    for_each = {b = 2, a = 1}\n"
                                        "    iterator = it\n    labels = [\"shell\"]\n    content {\n      inline = [\"${it.key}${it.value}${source.name}\"]\n    }\n  }\n}\n",
                                 NULL);
    TemplateBuild *build = build_at(t, 0);

    g_assert_cmpuint(build->provisioners->len, ==, 2);
    assert_json(provisioner_at(build, 0)->args, "{\"inline\":[\"a1a\"]}");
    assert_json(provisioner_at(build, 1)->args, "{\"inline\":[\"b2a\"]}");
}

static void test_names_of_other_templates(void)
{
    static const char *const except[] = {"disk.A", NULL};
    const TemplateOptions options = {.except = except};
    g_autoptr(Template) two = load("source \"qemu\" \"_x\" {}\nsource \"disk\" \"A\" {}\nbuild {\n  sources = [\"qemu._x\", \"disk.A\"]\n}\n", &options);

    g_assert_cmpuint(template_builds(two)->len, ==, 1);
    g_assert_cmpstr(build_at(two, 0)->name, ==, "x");
    g_assert_cmpstr(build_at(two, 0)->build_name, ==, "_x");
}

/* What is printed in place of, and looked for on disks: the password, not whom it belongs to. */
static void test_sensitive_parts(void)
{
    g_autoptr(Template) t = load("variable \"pw\" {\n  default = \"secret-one\"\n  sensitive = true\n}\n"
                                 "locals {\n  user = { name = \"operator\", password = var.pw, list = [\"plain\", \"x-${var.pw}\"] }\n}\n" SOURCE BUILD, &(TemplateOptions){.look_only = true});
    g_autoptr(GPtrArray) texts = template_sensitive(t);

    g_assert_true(g_ptr_array_find_with_equal_func(texts, "secret-one", g_str_equal, NULL));
    g_assert_true(g_ptr_array_find_with_equal_func(texts, "x-secret-one", g_str_equal, NULL));
    g_assert_false(g_ptr_array_find_with_equal_func(texts, "operator", g_str_equal, NULL));
    g_assert_false(g_ptr_array_find_with_equal_func(texts, "plain", g_str_equal, NULL));
}

static void test_rebase(void)
{
    static const char text[] = "source \"x\" \"a\" { v = 1 }\nsource \"x\" \"b\" {}\nbuild {\n  sources = [\"x.a\"]\n  source \"x.b\" { name = \"alias\" }\n}\n";
    static const char *const both[] = {"x.a=image:web", "source.x.alias=base.qcow2", "x.b=last.raw", NULL}, *const wrong[] = {"x.c=y", NULL}, *const odd[] = {"x.a", NULL};
    const TemplateOptions options = {.rebase = both}, mistyped = {.rebase = wrong}, malformed = {.rebase = odd};
    g_autoptr(Template) t = load(text, &options);
    g_autoptr(json_t) given = template_given(t);

    g_assert_cmpstr(build_at(t, 0)->rebase, ==, "image:web");
    g_assert_cmpstr(build_at(t, 1)->rebase, ==, "last.raw");
    g_assert_cmpuint(json_array_size(json_object_get(given, "rebase")), ==, 3);
    g_autofree char *no_source = load_fails(text, &mistyped), *no_form = load_fails(text, &malformed);

    g_assert_nonnull(strstr(no_source, "no source of that name"));
    g_assert_nonnull(strstr(no_form, "-rebase is written"));
}

static void test_several_sources(void)
{
    g_autoptr(Template) t = load("source \"x\" \"a\" { v = 1 }\nsource \"x\" \"b\" {}\n"
                                 "build {\n  name = \"web\"\n  sources = [\"source.x.a\"]\n"
                                 "  source \"x.b\" {\n    name = \"alias\"\n    w = 2\n  }\n"
                                 "  provisioner \"shell\" {\n    only = [\"x.alias\"]\n  }\n"
                                 "  provisioner \"file\" {\n    except = [\"x.alias\"]\n  }\n"
                                 "  provisioner \"test\" {\n    k = 1\n    override = {\n      alias = { k = 2, l = 3 }\n    }\n  }\n}\n",
                                 NULL);
    TemplateBuild *a = build_at(t, 0), *b = build_at(t, 1);

    g_assert_cmpstr(a->name, ==, "web.a");
    g_assert_cmpstr(b->name, ==, "web.alias");
    g_assert_cmpstr(b->build_name, ==, "b");
    assert_json(b->source->args, "{\"w\":2}");
    g_assert_cmpstr(provisioner_at(a, 0)->type, ==, "file");
    g_assert_cmpstr(provisioner_at(b, 0)->type, ==, "shell");
    assert_json(provisioner_at(a, 1)->args, "{\"k\":1}");
    assert_json(provisioner_at(b, 1)->args, "{\"k\":2,\"l\":3}");
}

static void assert_names(const char *text, const TemplateOptions *options, const char *expected)
{
    g_autoptr(Template) t = load(text, options);
    g_autoptr(GString) names = g_string_new(NULL);

    for (guint i = 0; i < template_builds(t)->len; i++)
        g_string_append_printf(names, "%s%s", i ? " " : "", build_at(t, i)->name);
    g_assert_cmpstr(names->str, ==, expected);
}

/* Packer lets builds be called anything, and the same: as names of images they are changed, and told apart. */
static void test_names(void)
{
    const char *only[] = { "*.two", NULL };

    assert_names("source \"null\" \"Big_one\" {}\nbuild {\n  sources = [\"source.null.Big_one\"]\n}\n", NULL, "big_one");
    assert_names(SOURCE "build {\n  name = \"My image: 1\"\n  sources = [\"source.null.a\"]\n}\n", NULL, "my-image--1");
    assert_names(SOURCE "build {\n  name = \"0123456789abcdef\"\n  sources = [\"source.null.a\"]\n}\n", NULL, "0123456789abcdef-image");
    assert_names(SOURCE "build {\n  name = \"-\"\n  sources = [\"source.null.a\"]\n}\n", NULL, "image");
    assert_names(SOURCE "source \"file\" \"a\" {}\nbuild {\n  name = \"\"\n  sources = [\"null.a\", \"file.a\"]\n}\n", NULL, "null.a file.a");
    assert_names(SOURCE "source \"file\" \"a\" {}\nbuild {\n  name = \"b\"\n  sources = [\"null.a\", \"file.a\"]\n}\n", NULL, "b.null.a b.file.a");
    assert_names(SOURCE BUILD BUILD, NULL, "null.a null.a-2");
    assert_names(SOURCE "build {\n  source \"null.a\" {\n    name = \"two\"\n  }\n  sources = [\"null.a\"]\n}\n" BUILD, &(TemplateOptions){ .only = only }, "two");
}

/* What is said with nothing in it is not said. */
static void test_empty_words(void)
{
    g_autoptr(Template) t = load(SOURCE "build {\n  sources = [\"null.a\"]\n  provisioner \"shell\" {\n    only = []\n    except = [\"null.b\"]\n"
                                 "    pause_before = \"\"\n    timeout = \"\"\n  }\n}\n", NULL);

    g_assert_cmpuint(build_at(t, 0)->provisioners->len, ==, 1);
    g_assert_true(provisioner_at(build_at(t, 0), 0)->timeout == 0);
}

static void test_durations(void)
{
    static const char text[] = SOURCE "build {\n  sources = [\"null.a\"]\n  provisioner \"shell\" {\n    pause_before = \"0\"\n    timeout = \"30%s\"\n  }\n}\n";
    g_autofree char *with = g_strdup_printf(text, "s"), *without = g_strdup_printf(text, "");
    g_autofree char *message = load_fails(without, NULL);
    g_autoptr(Template) t = load(with, NULL);

    g_assert_true(provisioner_at(build_at(t, 0), 0)->timeout == 30);
    g_assert_nonnull(strstr(message, "'30' has no unit"));
}

static void test_dynamic_sources(void)
{
    g_autoptr(Template) t = load("source \"x\" \"a\" {}\nbuild {\n  name = \"web\"\n  dynamic \"source\" {\n    for_each = { p = 1, q = 2 }\n"
                                 "    labels = [\"x.a\"]\n    content {\n      name = source.key\n      v = source.value\n      b = build.name\n    }\n  }\n}\n",
                                 NULL);

    g_assert_cmpstr(build_at(t, 0)->name, ==, "web.p");
    assert_json(build_at(t, 1)->source->args, "{\"b\":\"web\",\"v\":2}");
}

static void test_only_except(void)
{
    static const char text[] = "source \"x\" \"a\" {}\nsource \"x\" \"b\" {\n  v = 1/0\n}\n"
                               "build {\n  name = \"web\"\n  sources = [\"source.x.a\", \"source.x.b\"]\n  post-processor \"manifest\" {}\n}\n";
    static const char *const only[] = { "*.a", NULL };
    static const char *const except[] = { "web.x.b", "manifest", NULL };
    static const char *const nothing[] = { "zzz", NULL };
    g_autoptr(Template) t = load(text, &(TemplateOptions){ .only = only });
    g_autoptr(Template) u = load(text, &(TemplateOptions){ .except = except });
    g_autofree char *message = load_fails(text, &(TemplateOptions){ .only = nothing });

    g_assert_cmpuint(template_builds(t)->len, ==, 1);
    g_assert_cmpstr(build_at(t, 0)->name, ==, "web.a");
    g_assert_cmpuint(build_at(t, 0)->post_processors->len, ==, 1);
    g_assert_cmpuint(template_builds(u)->len, ==, 1);
    g_assert_cmpuint(build_at(u, 0)->post_processors->len, ==, 0);
    g_assert_nonnull(strstr(message, "leave nothing"));
}

/* --- variables --- */

static void test_precedence(void)
{
    static const char *const files[] = { "one.pkrvars.hcl", "two.pkrvars.json", NULL };
    static const char *const vars[] = { "e=var", "e=var2", NULL };
    TemplateOptions options = { .vars = vars, .var_files = files };
    g_autoptr(GError) error = NULL;
    g_autoptr(Template) t = NULL;
    g_autoptr(json_t) json = NULL;

    g_assert_true(file_make_dirs("dir", 0755, NULL));
    g_assert_true(g_file_set_contents("dir/b.pkr.hcl",
                                      "variable \"a\" { default = \"default\" }\nvariable \"b\" { default = \"default\" }\n"
                                      "variable \"c\" { default = \"default\" }\nvariable \"d\" { default = \"default\" }\n"
                                      "variable \"e\" { default = \"default\" }\nvariable \"f\" {\n  type = list(number)\n}\n",
                                      -1, NULL));
    g_assert_true(g_file_set_contents("dir/a.pkr.hcl", SOURCE BUILD, -1, NULL));
    g_assert_true(g_file_set_contents("dir/x.auto.pkrvars.hcl", "c = \"auto\"\nd = \"auto\"\ne = \"auto\"\nunknown = 1\n", -1, NULL));
    g_assert_true(g_file_set_contents("one.pkrvars.hcl", "d = \"one\"\ne = \"one\"\n", -1, NULL));
    g_assert_true(g_file_set_contents("two.pkrvars.json", "{\"d\": \"two\", \"e\": \"two\"}", -1, NULL));
    g_setenv("PKR_VAR_b", "env", TRUE);
    g_setenv("PKR_VAR_c", "env", TRUE);
    g_setenv("PKR_VAR_f", "[1, 2 + 3]", TRUE);
    (void)template_load("dir", &options, &t, &error);
    g_unsetenv("PKR_VAR_b");
    g_unsetenv("PKR_VAR_c");
    g_unsetenv("PKR_VAR_f");
    g_assert_no_error(error);
    g_assert_true(template_evaluate(t, "[var.a, var.b, var.c, var.d, var.e, var.f]", &json, &error));
    g_assert_no_error(error);
    assert_json(json, "[\"default\",\"env\",\"auto\",\"two\",\"var2\",[1,5]]");
    g_assert_cmpuint(g_hash_table_size(template_files(t)), ==, 5);
}

/* Enough to load it again elsewhere, and no sensitive value. */
static void test_given(void)
{
    static const char *const vars[] = {"word=said", "key=SECRET", NULL};
    g_autoptr(Template) t = load("variable \"word\" {}\nvariable \"list\" { default = [1, \"b\"] }\nvariable \"key\" { sensitive = true }\n"
                                 "variable \"own\" {\n  sensitive = true\n  default = \"x\"\n}\n" SOURCE BUILD,
                                 &(TemplateOptions){.vars = vars});
    g_autoptr(json_t) given = template_given(t);

    g_assert_true(g_path_is_absolute(json_string_value(json_object_get(given, "template"))));
    assert_json(json_object_get(given, "variables"), "{\"list\":[1,\"b\"],\"word\":\"said\"}");
    assert_json(json_object_get(given, "sensitive"), "[\"key\"]");
}

static void test_types(void)
{
    static const char *const vars[] = { "n=5", "s=5", "b=true", "o={a = 1}", "u=07", NULL };
    g_autoptr(Template) t = load("variable \"n\" { type = number }\nvariable \"s\" { type = string }\nvariable \"b\" { type = bool }\n"
                                 "variable \"o\" {\n  type = object({ a = string, b = optional(number, 3) })\n}\nvariable \"u\" {}\n"
                                 "variable \"d\" { default = 1 }\nvariable \"l\" {\n  type = map(string)\n  default = { a = 1 }\n}\n"
                                 "variable \"home\" { default = env(\"TEMPLATE_TEST\") }\n" SOURCE BUILD,
                                 &(TemplateOptions){ .vars = vars });
    g_autoptr(json_t) json = NULL;

    g_assert_true(template_evaluate(t, "[var.n, var.s, var.b, var.o, var.u, var.d, var.l, var.home]", &json, NULL));
    assert_json(json, "[5,\"5\",true,{\"a\":\"1\",\"b\":3},\"07\",1,{\"a\":\"1\"},\"\"]");
}

static void test_unset_allowed(void)
{
    g_autoptr(Template) t = load("variable \"n\" {}\nlocals {\n  x = \"a${var.n}\"\n}\nsource \"null\" \"a\" {\n  v = local.x\n}\n" BUILD,
                                 &(TemplateOptions){ .allow_unset = true });

    assert_json(build_at(t, 0)->source->args, "{\"v\":\"<unknown>\"}");
}

static const char data_text[] = "data \"null\" \"b\" {\n  input = \"${data.null.a.output}-${local.l}\"\n}\ndata \"null\" \"a\" {\n  input = \"1\"\n}\n"
                                "locals {\n  l = \"2\"\n  m = data.null.b.output\n}\ndata \"amazon-ami\" \"x\" {\n  any = 1\n}\n"
                                "source \"null\" \"a\" {\n  v = local.m\n}\nsource \"null\" \"b\" {\n  v = data.amazon-ami.x.id\n}\n"
                                "build {\n  sources = [\"null.a\", \"null.b\"]\n}\n";

/* Who only looks gets values that are not known, of what only a plugin could ask. */
static void test_data(void)
{
    g_autoptr(Template) t = load(data_text, &(TemplateOptions){ .look_only = true });

    assert_json(build_at(t, 0)->source->args, "{\"v\":\"1-2\"}");
    g_assert_false(build_at(t, 0)->source->unknown);
    assert_json(build_at(t, 1)->source->args, "{\"v\":\"<unknown>\"}");
    g_assert_true(build_at(t, 1)->source->unknown);
}

static void test_files(void)
{
    g_autoptr(Template) t = NULL;
    g_autofree char *path = g_canonicalize_filename("page.txt", NULL);
    Digest expected;

    g_assert_true(g_file_set_contents("page.txt", "hello\n", -1, NULL));
    t = load("locals {\n  page = file(\"page.txt\")\n}\n" SOURCE BUILD, NULL);
    digest_of_string("hello\n", &expected);
    g_assert_nonnull(g_hash_table_lookup(template_files(t), path));
    g_assert_true(digest_equal(g_hash_table_lookup(template_files(t), path), &expected));
}

static void test_complain(void)
{
    g_autoptr(Template) t = load("source \"null\" \"a\" {\n  size = \"2X\"\n}\n" BUILD, NULL);
    g_autoptr(GError) error = NULL;

    g_assert_false(template_complain(build_at(t, 0)->source, "size", &error, "'%s' is no size", "2X"));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_USAGE);
    g_assert_cmpstr(error->message, ==, "t.pkr.hcl:2:10: '2X' is no size\n      size = \"2X\"\n             ^^^^");
    g_clear_error(&error);
    g_assert_false(template_complain(build_at(t, 0)->source, "other", &error, "no"));
    g_assert_true(g_str_has_prefix(error->message, "t.pkr.hcl:1:1: no\n"));
}

/* --- mistakes: template, then the message must hold each of the texts --- */

typedef struct Mistake {
    const char *text;
    const char *said[3];
} Mistake;

static const Mistake mistakes[] = {
    { SOURCE "build {\n  sources = [\"source.null.b\"]\n}\n", { "t.pkr.hcl:3:14: there is no source 'null.b'; did you mean 'null.a'?" } },
    { SOURCE "build {\n  sources = [source.null.a]\n}\n", { "t.pkr.hcl:3:14: a source is named in quotes" } },
    { SOURCE "build {}\n", { "t.pkr.hcl:2:1: this build has no source" } },
    { SOURCE, { "no build block" } },
    { "buld {}\n" SOURCE BUILD, { "t.pkr.hcl:1:1: a template has no block 'buld'; did you mean 'build'?" } },
    { "x = 1\n" SOURCE BUILD, { "t.pkr.hcl:1:1: the argument 'x' stands in no block" } },
    { "source \"null\" {}\n" SOURCE BUILD, { "t.pkr.hcl:1:1: this block is written source \"TYPE\" \"NAME\"" } },
    { SOURCE SOURCE BUILD, { "t.pkr.hcl:2:1: the source 'null.a' is defined twice; the first is in t.pkr.hcl on line 1" } },
    { "data \"http\" \"x\" {}\n" SOURCE BUILD, { "t.pkr.hcl:1:1: the data source 'http' needs the argument 'url'" } },
    { "data \"hcp-packer-version\" \"x\" { bucket_name = \"b\" }\n" SOURCE BUILD, { "t.pkr.hcl:1:1: 'hcp-packer-version' asks HashiCorp's registry" } },
    { "hcp_packer_registry {\n  bucket_name = \"a_b\"\n}\n" SOURCE BUILD, { "t.pkr.hcl:2:17: a bucket's name has 3 to 36 letters" } },
    { "hcp_packer_registry {\n  bucket_nam = \"abc\"\n}\n" SOURCE BUILD, { "did you mean 'bucket_name'?" } },
    { "variable \"r\" {}\nlocals {\n  i = \"x${var.r}\"\n  j = [local.i]\n}\nsource \"null\" \"z\" {\n  v = local.j\n}\n" SOURCE BUILD,
      { "t.pkr.hcl:1:1: the variable 'r' has no value", "; local.i needs it, and local.j needs that, and source.null.z needs that" } },
    { "data \"amazon-ami\" \"x\" {}\n" SOURCE BUILD, { "t.pkr.hcl:1:1: the data source 'amazon-ami' is of a plugin" } },
    { "data \"null\" \"x\" {\n  input = data.null.y.output\n}\n" SOURCE BUILD, { "t.pkr.hcl:2:21: this object has no attribute 'y'" } },
    { "variable \"a\" {}\n" SOURCE BUILD, { "t.pkr.hcl:1:1: the variable 'a' has no value; give it with -var a=VALUE" } },
    { "variable \"a\" { default = 1 }\nvariable \"a\" { default = 1 }\n" SOURCE BUILD, { "t.pkr.hcl:2:1: the variable 'a' is declared twice" } },
    { "variable \"a\" {\n  typ = string\n}\n" SOURCE BUILD, { "t.pkr.hcl:2:3: a variable has no argument 'typ'; did you mean 'type'?", "no value" } },
    { "variable \"a\" {\n  type = strng\n  default = 1\n}\n" SOURCE BUILD, { "t.pkr.hcl:2:10: 'strng' is not a type; did you mean 'string'?" } },
    { "variable \"a\" {\n  type = number\n  default = \"x\"\n}\n" SOURCE BUILD, { "t.pkr.hcl:3:13: the default of variable 'a' does not fit: a number is needed, not a string" } },
    { "variable \"a\" {\n  default = 5\n  validation {\n    condition     = var.a > 6\n    error_message = \"Too small.\"\n  }\n}\n" SOURCE BUILD,
      { "t.pkr.hcl:4:21: the value of variable 'a' is refused: Too small." } },
    { "variable \"a\" {\n  default = 5\n  validation {\n    condition     = true\n    error_message = \"Too small.\"\n  }\n}\n" SOURCE BUILD,
      { "does not look at var.a" } },
    { "variable \"a\" {\n  default = local.x\n}\nlocals { x = 1 }\n" SOURCE BUILD, { "t.pkr.hcl:2:13: there is nothing called 'local' here" } },
    { "locals {\n  a = local.b\n  b = local.c\n  c = local.a\n}\n" SOURCE BUILD, { "needs itself, through others" } },
    { "locals {\n  a = local.a\n}\n" SOURCE BUILD, { "t.pkr.hcl:2:7: the local value 'a' needs itself" } },
    { "locals {\n  aa = 1\n  b = local.ab\n}\n" SOURCE BUILD, { "t.pkr.hcl:3:13: there is no local value 'ab'; did you mean 'aa'?" } },
    { "locals {\n  a = var.nope\n}\n" SOURCE BUILD, { "t.pkr.hcl:2:11: there is no variable 'nope'" } },
    { "locals {\n  a = nope1\n  b = nope2\n}\n" SOURCE BUILD, { "t.pkr.hcl:2:7: there is nothing called 'nope1'", "t.pkr.hcl:3:7: there is nothing called 'nope2'" } },
    { "locals {\n  a = 1 +\n  b = 2\n}\nlocals {\n  c = = 3\n}\n" SOURCE BUILD, { "t.pkr.hcl:2:10: expected a value here, found the end of the line", "t.pkr.hcl:6:7: expected a value here, found '='" } },
    { "locals {\n  a = 1\n" , { "t.pkr.hcl:1:8: this '{' is never closed" } },
    { "locals { a = 1 }}\n" SOURCE BUILD, { "expected the end of the line here, found '}'" } },
    { "locals {\n  a = 1\n  a = 2\n}\n" SOURCE BUILD, { "t.pkr.hcl:3:3: the argument 'a' is set twice here; the first is on line 2" } },
    { "locals { a = 1, b = 2 }\n" SOURCE BUILD, { "t.pkr.hcl:1:15:" } },
    { "source \"null\" \"a b\" {}\nbuild {\n  sources = [\"source.null.a b\"]\n}\n", { "t.pkr.hcl:3:14: 'null.a b' can't be named here" } },
    { "variable \"a b\" {}\n" SOURCE BUILD, { "t.pkr.hcl:1:1: 'a b' is no name" } },
    { "local \"1\" {\n  expression = 1\n}\n" SOURCE BUILD, { "t.pkr.hcl:1:1: '1' is no name" } },
    { "packer {\n  required_plugins {\n    x = \"1.0\"\n  }\n}\n" SOURCE BUILD, { "t.pkr.hcl:3:9: a plugin is written NAME = {" } },
    { "packer {\n  required_plugins {\n    x = {\n      version = \"1.0\"\n      source  = \"https://a/b/c\"\n    }\n  }\n}\n" SOURCE BUILD,
      { "t.pkr.hcl:3:9: a plugin is written NAME = {" } },
    { "hcp_packer_registry {}\nhcp_packer_registry {}\n" SOURCE BUILD, { "t.pkr.hcl:2:1: a template has one 'hcp_packer_registry' at most" } },
    { SOURCE "build {\n  sources = [\"source.null.a\"]\n  provisoner \"shell\" {}\n}\n", { "t.pkr.hcl:4:3: a build has no block 'provisoner'; did you mean 'provisioner'?" } },
    { SOURCE "build {\n  sources = [\"source.null.a\"]\n  provisioner \"shell\" {\n    timeout = \"soon\"\n    network = \"perhaps\"\n    max_retries = -1\n  }\n}\n",
      { "t.pkr.hcl:5:15:", "t.pkr.hcl:6:15: 'network' does not fit: a bool is needed", "t.pkr.hcl:7:19: 'max_retries' is a whole number" } },
    { SOURCE "build {\n  sources = [\"source.null.a\"]\n  provisioner \"shell\" {\n    only = [\"x\"]\n    except = [\"y\"]\n  }\n}\n", { "'only' or 'except', not both" } },
    { SOURCE "build {\n  sources = [\"source.null.a\"]\n  output \"iso\" {}\n}\n", { "t.pkr.hcl:4:3: there is no output 'iso'" } },
    { SOURCE "build {\n  sources = [\"source.null.a\"]\n  output \"oci\" {}\n  output \"oci\" {}\n}\n", { "t.pkr.hcl:5:3: the output 'oci' is declared twice" } },
    { "source \"null\" \"a\" {\n  v = 1\n}\nbuild {\n  source \"null.a\" {\n    v = 2\n  }\n}\n", { "t.pkr.hcl:6:5: the argument 'v' is set already" } },
    { "variables {\n  foo = \"a\"\n}\nlocals {\n  a = var.fo\n}\n" SOURCE BUILD, { "did you mean 'foo'?" } },
};

/* Blocks in blocks in blocks: the walk for who needs a value goes into each once. */
static void test_deep_needs(void)
{
    g_autoptr(GString) text = g_string_new("variable \"r\" {}\n");
    g_autoptr(GError) error = NULL;
    g_autoptr(Template) t = NULL;

    for (unsigned i = 0; i < 60; i++)
        g_string_append(text, "build {\n");
    g_string_append(text, "source \"null\" \"z\" {\n  v = var.r\n}\n");
    for (unsigned i = 0; i < 60; i++)
        g_string_append(text, "}\n");
    g_assert_true(g_file_set_contents("t.pkr.hcl", text->str, -1, NULL));
    g_assert_false(template_load("t.pkr.hcl", NULL, &t, &error));
    g_assert_nonnull(strstr(error->message, "; source.null.z needs it"));
}

static void test_mistakes(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(mistakes); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(Template) t = NULL;
        bool loaded;

        g_assert_true(g_file_set_contents("t.pkr.hcl", mistakes[i].text, -1, NULL));
        loaded = template_load("t.pkr.hcl", NULL, &t, &error);
        for (size_t j = 0; j < G_N_ELEMENTS(mistakes[i].said) && mistakes[i].said[j]; j++)
            if (loaded || !strstr(error->message, mistakes[i].said[j])) {
                g_test_message("%s\n  gives %s\n  not   %s", mistakes[i].text, loaded ? "a template" : error->message,
                               mistakes[i].said[j]);
                g_test_fail();
            }
    }
}

static void test_bad_options(void)
{
    static const char *const vars[] = { "nam=1", "noequals", "n=x", NULL };
    static const char *const files[] = { "no-such-file.pkrvars.hcl", NULL };
    g_autofree char *message = load_fails("variable \"name\" { default = 1 }\nvariable \"n\" { type = number }\n" SOURCE BUILD,
                                          &(TemplateOptions){ .vars = vars, .var_files = files });

    g_assert_nonnull(strstr(message, "-var nam: the template declares no variable 'nam'; did you mean 'name'?"));
    g_assert_nonnull(strstr(message, "-var 'noequals' has no '='"));
    g_assert_nonnull(strstr(message, "-var n:1:1: the value for variable 'n' does not fit its type"));
    g_assert_nonnull(strstr(message, "no-such-file.pkrvars.hcl"));
}

static void test_bad_files(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Template) t = NULL;

    g_assert_false(template_load("no-such.pkr.hcl", NULL, &t, &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_USAGE);
    g_clear_error(&error);
    g_assert_true(file_make_dirs("empty", 0755, NULL));
    g_assert_false(template_load("empty", NULL, &t, &error));
    g_assert_nonnull(strstr(error->message, "holds no template"));
    g_clear_error(&error);
    g_assert_true(g_file_set_contents("x.json", "{}", -1, NULL));
    g_assert_false(template_load("x.json", NULL, &t, &error));
    g_assert_nonnull(strstr(error->message, "written in HCL"));
}

/* A template cut anywhere is told, not crashed on. */
static void test_prefixes(void)
{
    static const char text[] = "variable \"a\" {\n  type = object({ x = string })\n  default = { x = \"1\" }\n}\n"
                               "locals {\n  h = <<-E\n    ${var.a.x}\n  E\n}\n" SOURCE
                               "build {\n  sources = [\"source.null.a\"]\n  dynamic \"provisioner\" {\n    labels = [\"shell\"]\n"
                               "    for_each = [1]\n    content { inline = [local.h] }\n  }\n}\n";

    for (size_t n = 0; n < strlen(text); n += 3) {
        g_autoptr(Template) t = NULL;

        g_assert_true(g_file_set_contents("t.pkr.hcl", text, (gssize)n, NULL));
        g_assert_false(template_load("t.pkr.hcl", NULL, &t, NULL));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/templates/whole-template", test_whole);
    g_test_add_func("/templates/labels-may-be-bare", test_bare_labels);
    g_test_add_func("/templates/nested-blocks-become-arrays", test_nested);
    g_test_add_func("/templates/dynamic-makes-provisioners", test_dynamic_provisioners);
    g_test_add_func("/templates/several-sources-make-several-builds", test_several_sources);
    g_test_add_func("/templates/names-become-names-of-images", test_names);
    g_test_add_func("/templates/names-and-selections", test_names_of_other_templates);
    g_test_add_func("/templates/empty-lists-and-durations-say-nothing", test_empty_words);
    g_test_add_func("/templates/a-duration-has-a-unit", test_durations);
    g_test_add_func("/templates/sensitive-parts", test_sensitive_parts);
    g_test_add_func("/templates/rebase", test_rebase);
    g_test_add_func("/templates/dynamic-makes-sources", test_dynamic_sources);
    g_test_add_func("/templates/only-and-except-select", test_only_except);
    g_test_add_func("/templates/variables-have-a-precedence", test_precedence);
    g_test_add_func("/templates/what-it-was-given-is-told-without-secrets", test_given);
    g_test_add_func("/templates/variables-have-types", test_types);
    g_test_add_func("/templates/unset-variables-may-be-unknown", test_unset_allowed);
    g_test_add_func("/templates/data-sources-are-evaluated-in-order", test_data);
    g_test_add_func("/templates/files-are-listed-with-digests", test_files);
    g_test_add_func("/templates/complain-shows-the-argument", test_complain);
    g_test_add_func("/templates/mistakes-are-placed-and-told", test_mistakes);
    g_test_add_func("/templates/a-need-deep-in-blocks-is-found-at-once", test_deep_needs);
    g_test_add_func("/templates/bad-options-are-told-together", test_bad_options);
    g_test_add_func("/templates/bad-files-are-refused", test_bad_files);
    g_test_add_func("/templates/every-prefix-is-survived", test_prefixes);
    return g_test_run();
}
