/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packer's null and file sources: no image comes of them.
 *
 * null bakes nothing: steps that run on this machine run, those that need a guest have none. file writes one file, and Packer runs no provisioners with it.
 */
#include "baker/source-common.h"
#include "baker/source-packer.h"

#include "base/error.h"
#include "base/file.h"

#include <fcntl.h>
#include <string.h>

#define NULL_SCHEMA(X) PACKER_CORE(X) PACKER_COMMUNICATOR(X)
PACKER_SCHEMA(NULL_SCHEMA);

#define FILE_MAX ((size_t)256 << 20)

static bool null_check(const json_t *args, const char **ret_argument, GError **error)
{
    g_autofree char *type = packer_raw(args, "communicator"), *ssh = packer_raw(args, "ssh_host"), *winrm = packer_raw(args, "winrm_host");
    bool none = g_strcmp0(type, "none") == 0, windows = g_strcmp0(type, "winrm") == 0;

    if (!packer_check(args, arguments, ret_argument, error) || !packer_check_communicator(args, "ssh", ret_argument, error))
        return false;
    return none || (windows ? winrm : ssh) ||
           fail_code(error, KILN_ERROR_USAGE, "'%s' must be given, or communicator = \"none\"", windows ? "winrm_host" : "ssh_host");
}

static bool nothing_identify(const SourceContext *context, const json_t *args, json_t **ret_identity, GError **error)
{
    *ret_identity = json_pack("{s:s}", "type", "nothing");
    return true;
}

static bool nothing_prepare(const SourceContext *context, const json_t *args, const json_t *identity, SourceState *ret, GError **error)
{
    *ret = (SourceState){.layout = LAYOUT_NONE, .epoch = MAX(context->epoch, 0)};
    return true;
}

static bool null_identify(const SourceContext *context, const json_t *args, json_t **ret_identity, GError **error)
{
    g_autofree char *type = packer_raw(args, "communicator");

    if (g_strcmp0(type, "none") != 0)
        return fail_code(error, KILN_ERROR_USAGE, "this null source works on a running machine over %s, and kiln bakes images: communicator = \"none\" runs what needs no machine",
                         type && *type ? type : "ssh");
    return nothing_identify(context, args, ret_identity, error);
}

const SourceOps source_null_ops = {
    .type = "null",
    .arguments = argument_names,
    .check = null_check,
    .identify = null_identify,
    .prepare = nothing_prepare,
    .packers = true,
};

static const char *const file_arguments[] = {"content", "source", "target", PACKER_CORE(PACKER_NAME_) NULL};
static const PackerArgument file_types[] = {{"content", PACKER_TEXT, true}, {"source", PACKER_TEXT, true}, {"target", PACKER_TEXT, true}, {0}};

static bool file_check(const json_t *args, const char **ret_argument, GError **error)
{
    if (!packer_check(args, file_types, ret_argument, error))
        return false;
    if (!packer_given(args, "target"))
        return fail_code(error, KILN_ERROR_USAGE, "'target' must be given");
    *ret_argument = "content";
    return !packer_given(args, "content") || !packer_given(args, "source") || fail_code(error, KILN_ERROR_USAGE, "'content' and 'source' cannot both stand here");
}

static bool write_bytes(const char *path, void *arg, GError **error)
{
    GBytes *bytes = arg;

    return file_replace(AT_FDCWD, path, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), 0644, FILE_SYNC_NO, error);
}

static bool file_deliver(const SourceContext *context, const json_t *args, const GPtrArray *images, GPtrArray *files, GError **error)
{
    g_autofree char *content = NULL, *source = NULL, *target = NULL, *found = NULL;
    g_autoptr(GBytes) bytes = NULL;
    char hex[DIGEST_HEX_SIZE];
    Digest digest;

    if (!packer_text(context, args, "content", "", &content, error) || !packer_text(context, args, "source", NULL, &source, error) ||
        !packer_text(context, args, "target", NULL, &target, error))
        return false;
    if (source) {
        found = source_find_file(context, source);
        if (!file_load(AT_FDCWD, found, FILE_MAX, &bytes, error))
            return false;
    } else {
        bytes = g_bytes_new(content, strlen(content));
    }
    digest_of(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &digest);
    return packer_deliver(context->store, files, target, digest_to_hex(&digest, hex), write_bytes, bytes, error);
}

const SourceOps source_file_ops = {
    .type = "file",
    .arguments = file_arguments,
    .check = file_check,
    .identify = nothing_identify,
    .prepare = nothing_prepare,
    .deliver = file_deliver,
    .packers = true,
};
