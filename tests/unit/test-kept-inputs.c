/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set keeps what it was made from: all names and digests, the bytes within limits, and no secret.
 */
#include "baker/kept-inputs.h"

#include "base/file.h"
#include "base/mask.h"
#include "tests/unit/store-support.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>

#define TOKEN "t0ken-that-nobody-may-keep"

typedef struct Fixture {
    StoreFixture base;
    Template *template;
    BakeChain chain;
    GPtrArray *chains;
} Fixture;

static void put(Fixture *f, const char *name, const void *data, gssize size)
{
    g_autofree char *path = g_build_filename(f->base.dir, name, NULL);

    g_assert_true(g_file_set_contents(path, data, size, NULL));
}

static void set_up(Fixture *f, gconstpointer data)
{
    g_autofree char *path = NULL, *folder = NULL;
    g_autoptr(GError) error = NULL;
    TemplateOptions options = {0};

    store_fixture_setup(&f->base, NULL);
    path = g_build_filename(f->base.dir, "t.pkr.hcl", NULL);
    folder = g_build_filename(f->base.dir, "files", NULL);
    g_assert_cmpint(g_mkdir(folder, 0755), ==, 0);
    put(f, "t.pkr.hcl", "source \"null\" \"a\" {}\nbuild { sources = [\"source.null.a\"] }\n", -1);
    put(f, "files/script.sh", "echo done\n", -1);
    put(f, "files/large", "0123456789", -1);
    (void)template_load(path, &options, &f->template, &error);
    g_assert_no_error(error);
    f->chain = (BakeChain){.store = f->base.store, .template = f->template, .steps = g_ptr_array_new()};
    f->chains = g_ptr_array_new();
    g_ptr_array_add(f->chains, &f->chain);
}

static void free_step(BakeStep *step)
{
    g_ptr_array_unref(step->inputs);
    g_free(step);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    g_ptr_array_foreach(f->chain.steps, (GFunc)(void (*)(void))free_step, NULL);
    g_ptr_array_unref(f->chain.steps);
    g_ptr_array_unref(f->chains);
    secrets_free(f->chain.secrets);
    template_free(f->template);
    store_fixture_teardown(&f->base, NULL);
}

/* A step that uploads @source. */
static void add_upload(Fixture *f, const char *source)
{
    g_autoptr(json_t) args = json_pack("{s:s, s:s}", "source", source, "destination", "/x");
    ProvisionerHost host = {.template_dir = f->base.dir, .cwd = f->base.dir};
    g_autoptr(GError) error = NULL;
    BakeStep *step = g_new0(BakeStep, 1);

    step->position = f->chain.steps->len + 1;
    step->inputs = g_ptr_array_new_with_free_func((GDestroyNotify)provisioner_input_free);
    g_assert_true(provisioner_find("file")->inputs(args, &host, step->inputs, &error));
    g_assert_no_error(error);
    g_ptr_array_add(f->chain.steps, step);
}

static GHashTable *keep(Fixture *f, KeptLimits limits)
{
    g_autoptr(GError) error = NULL;
    GHashTable *kept = NULL;

    (void)kept_inputs_within(&limits, f->base.store, f->template, f->chains, &kept, &error);
    g_assert_no_error(error);
    return kept;
}

static char *text_of(Fixture *f, GHashTable *kept, const char *name)
{
    const Digest *digest = g_hash_table_lookup(kept, name);
    g_autoptr(GBytes) bytes = NULL;

    if (!digest)
        return NULL;
    g_assert_true(store_blob_get(f->base.store, digest, 1 << 20, &bytes, NULL));
    return g_strndup(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
}

static const json_t *listed(const json_t *list, const char *name)
{
    json_t *one;
    size_t i;

    json_array_foreach (list, i, one)
        if (strcmp(json_string_value(json_object_get(one, "name")), name) == 0)
            return one;
    return NULL;
}

static json_t *list_of(Fixture *f, GHashTable *kept)
{
    g_autofree char *text = text_of(f, kept, "kiln.inputs");
    json_t *list = NULL;

    g_assert_nonnull(text);
    g_assert_true(json_parse(text, strlen(text), 1 << 20, "kiln.inputs", &list, NULL));
    return list;
}

static void test_all(Fixture *f, gconstpointer data)
{
    g_autoptr(GHashTable) kept = NULL;
    g_autoptr(json_t) list = NULL;
    g_autofree char *path = g_build_filename(f->base.dir, "t.pkr.hcl", NULL), *script = NULL, *template = NULL, *empty = NULL;
    const json_t *one;

    add_upload(f, "files");
    put(f, "empty", "", 0);
    add_upload(f, "empty");
    kept = keep(f, (KeptLimits){1 << 20, 1 << 20, 100});
    script = text_of(f, kept, "files/script.sh");
    g_assert_cmpstr(script, ==, "echo done\n");
    template = text_of(f, kept, path);
    g_assert_nonnull(template);
    empty = text_of(f, kept, "empty");
    g_assert_cmpstr(empty, ==, "");
    list = list_of(f, kept);
    g_assert_cmpuint(json_array_size(list), ==, 5); /* the template, the folder and its two files, the empty one */
    one = listed(list, "files/script.sh");
    g_assert_cmpint(json_integer_value(json_object_get(one, "step")), ==, 1);
    g_assert_cmpint(json_integer_value(json_object_get(one, "mode")) & S_IFMT, ==, S_IFREG);
    g_assert_true(json_equal(json_object_get(one, "blob"), json_object_get(one, "digest")));
    g_assert_null(json_object_get(listed(list, path), "step"));
}

static void test_limits(Fixture *f, gconstpointer data)
{
    g_autoptr(GHashTable) few = NULL, small = NULL;
    g_autoptr(json_t) list = NULL;
    const json_t *one;

    add_upload(f, "files/large");
    add_upload(f, "files/script.sh");
    small = keep(f, (KeptLimits){100, 75, 100}); /* template and one of the two */
    g_assert_nonnull(g_hash_table_lookup(small, "files/large"));
    g_assert_null(g_hash_table_lookup(small, "files/script.sh"));
    few = keep(f, (KeptLimits){9, 1 << 20, 100});
    g_assert_cmpuint(g_hash_table_size(few), ==, 2); /* kiln.inputs and kiln.given */
    list = list_of(f, few);
    one = listed(list, "files/large");
    g_assert_nonnull(json_object_get(one, "digest"));
    g_assert_null(json_object_get(one, "blob"));
}

static void test_changed(Fixture *f, gconstpointer data)
{
    g_autoptr(GHashTable) kept = NULL;
    g_autoptr(json_t) list = NULL;
    g_autofree char *path = g_build_filename(f->base.dir, "files/large", NULL);

    add_upload(f, "files");
    put(f, "files/script.sh", "echo other\n", -1);
    g_assert_cmpint(g_unlink(path), ==, 0);
    kept = keep(f, (KeptLimits){1 << 20, 1 << 20, 100});
    g_assert_null(g_hash_table_lookup(kept, "files/script.sh"));
    g_assert_null(g_hash_table_lookup(kept, "files/large"));
    list = list_of(f, kept);
    g_assert_nonnull(json_object_get(listed(list, "files/script.sh"), "digest"));
    g_assert_nonnull(json_object_get(listed(list, "files/large"), "digest"));
}

/* As a build with a secret block would have it. */
static void load_secret(Fixture *f)
{
    TemplateSecret secret = {.name = (char *)"token", .env = (char *)"KILN_TEST_TOKEN"};
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    TemplateBuild build = {.secrets = list};

    g_ptr_array_add(list, &secret);
    g_setenv("KILN_TEST_TOKEN", TOKEN, TRUE);
    g_assert_true(secrets_load(f->template, &build, &f->chain.secrets, NULL));
}

static void test_secrets(Fixture *f, gconstpointer data)
{
    static const char binary[] = "\0\1\2" TOKEN "\0", innocent[] = "\0\1\2";
    g_autoptr(GHashTable) kept = NULL;
    g_autoptr(json_t) list = NULL;
    g_autofree char *text = NULL;
    const json_t *one;
    Digest digest;
    char hex[DIGEST_HEX_SIZE];

    load_secret(f);
    put(f, "text", "password = " TOKEN "\n", -1);
    put(f, "binary", binary, sizeof binary);
    put(f, "innocent", innocent, sizeof innocent);
    add_upload(f, "text");
    add_upload(f, "binary");
    add_upload(f, "innocent");
    kept = keep(f, (KeptLimits){1 << 20, 1 << 20, 100});
    text = text_of(f, kept, "text");
    g_assert_cmpstr(text, ==, "password = <sensitive>\n");
    g_assert_null(g_hash_table_lookup(kept, "binary"));
    g_assert_nonnull(g_hash_table_lookup(kept, "innocent"));
    list = list_of(f, kept);
    digest_of_string("password = " TOKEN "\n", &digest);
    one = listed(list, "text");
    g_assert_cmpstr(json_string_value(json_object_get(one, "digest")), !=, digest_to_hex(&digest, hex));
    g_assert_null(json_object_get(listed(list, "binary"), "blob"));
}

/* A template that is on no disk. */
static void test_text(Fixture *f, gconstpointer data)
{
    static const char text[] = "source \"null\" \"b\" {}\nbuild { sources = [\"source.null.b\"] }\n";
    g_autoptr(GBytes) input = g_bytes_new_static(text, strlen(text));
    g_autoptr(GHashTable) kept = NULL;
    g_autofree char *got = NULL;

    template_free(f->template);
    f->template = NULL;
    g_assert_true(template_load("absent.pkr.hcl", &(TemplateOptions){.input = input}, &f->template, NULL));
    kept = keep(f, (KeptLimits){1 << 20, 1 << 20, 100});
    got = text_of(f, kept, KEPT_TEMPLATE);
    g_assert_cmpstr(got, ==, text);
}

static void test_own_names(Fixture *f, gconstpointer data)
{
    g_autoptr(GHashTable) kept = NULL;
    g_autoptr(json_t) list = NULL;

    put(f, "kiln.lock", "{}", -1);
    put(f, "kiln.inputs", "[]", -1);
    add_upload(f, "kiln.lock");
    add_upload(f, "kiln.inputs");
    kept = keep(f, (KeptLimits){1 << 20, 1 << 20, 100});
    g_assert_null(g_hash_table_lookup(kept, "kiln.lock"));
    g_assert_nonnull(g_hash_table_lookup(kept, "./kiln.lock"));
    list = list_of(f, kept);
    g_assert_cmpuint(json_array_size(list), ==, 3);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/kept-inputs/" name, Fixture, NULL, set_up, fn, tear_down)
    ADD("template-and-files-of-steps", test_all);
    ADD("what-is-too-large-is-listed-only", test_limits);
    ADD("what-changed-meanwhile-is-listed-only", test_changed);
    ADD("own-names-are-not-a-users-to-take", test_own_names);
    ADD("a-template-that-is-on-no-disk", test_text);
    ADD("secrets-are-masked-or-left-out", test_secrets); /* last: words stay masked */
    return g_test_run();
}
