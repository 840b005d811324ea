/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-processor "artifice": other files than those that the artifact came with, by names and globs from the working directory. It has no
 * image any more, and nothing is removed.
 */
#include "baker/post-members.h"

#include "base/error.h"

#include <glob.h>

static const char *const arguments[] = {"files", NULL};

static bool check(const json_t *args, const char **ret_argument, GError **error)
{
    return post_check_texts(args, "files", true, ret_argument, error);
}

/* Sorted, as glob() has them. */
static bool add_files(const char *pattern, PostArtifact *out, GError **error)
{
    glob_t found = {0};
    int rc = glob(pattern, 0, NULL, &found);

    for (size_t i = 0; rc == 0 && i < found.gl_pathc; i++)
        post_artifact_add_file(out, found.gl_pathv[i]);
    globfree(&found);
    return rc == 0 || fail(error, "'%s' in 'files' is no file", pattern);
}

static bool run(const PostContext *context, const json_t *args, const PostArtifact *in, PostArtifact **ret, GError **error)
{
    g_autoptr(GPtrArray) none = g_ptr_array_new();
    g_autoptr(PostArtifact) out = post_artifact_new(none);
    g_auto(GStrv) files = NULL;

    if (!json_get_strings(args, "files", &files, error))
        return false;
    for (char **file = files; *file; file++)
        if (!add_files(*file, out, error))
            return false;
    *ret = g_steal_pointer(&out);
    return true;
}

const PostOps post_artifice_ops = {
    .type = "artifice",
    .arguments = arguments,
    .check = check,
    .run = run,
    .makes_files = true,
    .keeps_input = true,
};
