/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places where a bake stops: which step a word means, and that breakpoints change nothing of the rest.
 */
#include "baker/bake-internal.h"
#include "base/error.h"

#include <glib/gstdio.h>
#include <string.h>

#define HEAD "source \"bootstrap\" \"base\" { suite = \"bookworm\" }\nbuild {\n  name = \"web\"\n  sources = [\"source.bootstrap.base\"]\n"
#define STEP(name) "  provisioner \"shell\" {\n    name = \"" name "\"\n    inline = [\"true\"]\n  }\n"

static Template *load(const char *body)
{
    g_autofree char *text = g_strconcat(HEAD, body, "}\n", NULL);
    g_autoptr(GError) error = NULL;
    Template *template = NULL;

    g_assert_true(g_file_set_contents("t.pkr.hcl", text, -1, NULL));
    (void)template_load("t.pkr.hcl", &(TemplateOptions){0}, &template, &error);
    g_assert_no_error(error);
    g_assert_true(bake_check(template_builds(template)->pdata[0], &error));
    return template;
}

static BakeStep *step_at(const BakeChain *chain, guint i)
{
    return chain->steps->pdata[i];
}

static GPtrArray *chains_of(Template *template)
{
    static const BakeOptions none;

    return bake_chains_new(NULL, template, template_builds(template)->pdata[0], &none);
}

static void finds(const BakeChain *chain, const char *word, size_t index)
{
    size_t got = 99;

    g_assert_true(bake_find_step(chain, word, &got));
    g_assert_cmpuint(got, ==, index);
}

static void test_words_for_steps(void)
{
    g_autoptr(Template) t = load(STEP("one") STEP("twice") STEP("twice") "  provisioner \"sleep\" { duration = \"1s\" }\n");
    g_autoptr(GPtrArray) chains = chains_of(t);
    const BakeChain *chain = chains->pdata[0];
    size_t index;

    finds(chain, "1", 0);
    finds(chain, "one", 0);
    finds(chain, "sleep", 3);
    finds(chain, "4", 3);
    finds(chain, "5", 4);
    finds(chain, "seal", 4);
    finds(chain, "end", 4);
    g_assert_false(bake_find_step(chain, "twice", &index));
    g_assert_false(bake_find_step(chain, "0", &index));
    g_assert_false(bake_find_step(chain, "6", &index));
    g_assert_false(bake_find_step(chain, "", &index));
    g_assert_false(bake_find_step(chain, "three", &index));
}

static void test_wrong_word_lists_the_steps(void)
{
    g_autoptr(Template) t = load(STEP("one") STEP("two"));
    g_autoptr(GError) error = NULL;

    g_assert_true(bake_check_step(template_builds(t)->pdata[0], "two", NULL));
    g_assert_false(bake_check_step(template_builds(t)->pdata[0], "three", &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_USAGE);
    g_assert_nonnull(strstr(error->message, "1 one, 2 two, 3 seal, end"));
}

/* A lock made without it fits, and one that is for an output only makes no second chain. */
static void test_breakpoints_count_for_nothing(void)
{
    g_autoptr(Template) t = load(STEP("one") "  provisioner \"breakpoint\" { only_output = [\"oci\"] }\n" STEP("two")
                                 "  output \"disk\" {}\n  output \"oci\" {}\n");
    g_autoptr(GPtrArray) chains = chains_of(t);
    const BakeChain *chain = chains->pdata[0];

    g_assert_cmpuint(chains->len, ==, 1);
    g_assert_cmpuint(chain->steps->len, ==, 3);
    g_assert_cmpuint(step_at(chain, 0)->position, ==, 1);
    g_assert_cmpuint(step_at(chain, 2)->position, ==, 2);
}

static void test_who_may_wait(void)
{
    g_autoptr(Template) with = load("  provisioner \"breakpoint\" {}\n"), off = load("  provisioner \"breakpoint\" { disable = true }\n");
    const TemplateBuild *build = template_builds(with)->pdata[0], *disabled = template_builds(off)->pdata[0];

    g_assert_true(bake_may_stop(build, &(BakeOptions){.interactive = true}));
    g_assert_false(bake_may_stop(build, &(BakeOptions){.on_error = "ask"}));
    g_assert_false(bake_may_stop(disabled, &(BakeOptions){.interactive = true}));
    g_assert_true(bake_may_stop(disabled, &(BakeOptions){.interactive = true, .on_error = "ask"}));
    g_assert_true(bake_may_stop(disabled, &(BakeOptions){.shell_at = "1"}));
}

/* Its arguments are checked as a step's are. */
static void test_cleanup_is_checked(void)
{
    static const char text[] = HEAD STEP("one") "  error-cleanup-provisioner \"shell\" { inlin = [\"x\"] }\n}\n";
    g_autoptr(GError) error = NULL;
    g_autoptr(Template) t = NULL;

    g_assert_true(g_file_set_contents("t.pkr.hcl", text, -1, NULL));
    g_assert_true(template_load("t.pkr.hcl", &(TemplateOptions){0}, &t, NULL));
    g_assert_false(bake_check(template_builds(t)->pdata[0], &error));
    g_assert_nonnull(strstr(error->message, "did you mean 'inline'"));
}

int main(int argc, char **argv)
{
    g_autofree char *folder = g_dir_make_tmp("kiln-test-stop-XXXXXX", NULL);
    int status;

    g_test_init(&argc, &argv, NULL);
    g_assert_cmpint(g_chdir(folder), ==, 0);
    g_test_add_func("/bake-stop/words-for-steps", test_words_for_steps);
    g_test_add_func("/bake-stop/wrong-word-lists-the-steps", test_wrong_word_lists_the_steps);
    g_test_add_func("/bake-stop/breakpoints-count-for-nothing", test_breakpoints_count_for_nothing);
    g_test_add_func("/bake-stop/who-may-wait", test_who_may_wait);
    g_test_add_func("/bake-stop/error-cleanup-provisioner-is-checked", test_cleanup_is_checked);
    status = g_test_run();
    (void)g_unlink("t.pkr.hcl");
    (void)g_rmdir(folder);
    return status;
}
