/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Provisioner "file": files and folders into the guest, or out of it.
 *
 * Packer's rules about names, which are rsync's:
 *
 *     source "conf"   (folder)  destination "/etc"    ->  /etc/conf/...
 *     source "conf/"  (folder)  destination "/etc"    ->  /etc/...
 *     source "a.txt"            destination "/etc/"   ->  /etc/a.txt
 *     source "a.txt"            destination "/etc/b"  ->  /etc/b, or /etc/b/a.txt where /etc/b is a folder
 *
 * Better than Packer: no upload user, so no step that moves files into place; modes and links are kept;
 * owner, group and mode can be given. Times are SOURCE_DATE_EPOCH, never the host file's: a fresh checkout
 * must give the image of yesterday's.
 *
 * A guest is hostile when it is read: names that a download brings are checked; depth, size and count are
 * bounded (a loop of links ends there).
 */
#include "base/file.h"
#include "base/error.h"
#include "base/scope.h"
#include "provisioner/arguments.h"
#include "provisioner/guest-file.h"
#include "provisioner/host-file.h"
#include "provisioner/members.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define DOWNLOAD_FILE_MAX (64ull << 30)
#define DOWNLOAD_FILES_MAX 100000u
#define ACCOUNTS_SIZE_MAX (4u << 20) /* /etc/passwd of a guest */

/* clang-format off */
#define FILE_ARGUMENTS(X)                                                                                \
    X(source, TEXT) X(sources, TEXTS) X(content, TEXT) X(destination, TEXT) X(direction, TEXT)           \
    X(generated, BOOL) X(owner, TEXT) X(group, TEXT) X(mode, TEXT)
/* clang-format on */
ARGUMENTS_DEFINE(FILE_ARGUMENTS);

static const char *const origins[] = {"source", "sources", "content", NULL};
#define MODE_KEEP 0xffffu

static bool parse_mode(const json_t *args, uint16_t *ret, GError **error)
{
    g_autofree char *text = argument_text(args, "mode", NULL);
    char *end;

    *ret = MODE_KEEP;
    if (!text)
        return true;
    unsigned long value = strtoul(text, &end, 8);
    if (!json_is_string(json_object_get(args, "mode")) || !g_ascii_isdigit(text[0]) || *end || value > 07777)
        return fail_code(error, KILN_ERROR_USAGE, "'mode' must be octal digits in quotes, such as \"0644\"");
    *ret = (uint16_t)value;
    return true;
}

static bool is_download(const json_t *args)
{
    g_autofree char *direction = argument_text(args, "direction", "upload");
    return strcmp(direction, "download") == 0;
}

static bool check_destination(const json_t *args, const char **ret_argument, GError **error)
{
    g_autofree char *destination = argument_text(args, "destination", "");

    *ret_argument = "destination";
    if (!*destination) {
        *ret_argument = NULL;
        return fail_code(error, KILN_ERROR_USAGE, "'destination' is needed");
    }
    if (!is_download(args) && destination[0] != '/' && !g_str_has_prefix(destination, "{{"))
        return fail_code(error, KILN_ERROR_USAGE,
                         "'destination' must be an absolute path in the guest, not \"%s\"", destination);
    if (argument_given(args, "content") && g_str_has_suffix(destination, "/"))
        return fail_code(error, KILN_ERROR_USAGE, "'destination' must name a file when 'content' is given");
    *ret_argument = NULL;
    return true;
}

static bool check_download(const json_t *args, const char **ret_argument, GError **error)
{
    static const char *const upload_only[] = {"content", "owner", "group", "mode", NULL};

    for (const char *const *name = upload_only; is_download(args) && *name; name++)
        if (argument_given(args, *name)) {
            *ret_argument = *name;
            return fail_code(error, KILN_ERROR_USAGE, "'%s' is for uploads only", *name);
        }
    return true;
}

static bool file_check(const json_t *args, const char **ret_argument, GError **error)
{
    g_autofree char *direction = argument_text(args, "direction", "upload");
    uint16_t mode;

    if (!arguments_check(args, argument_specs, ret_argument, error) ||
        !arguments_exactly_one(args, origins, ret_argument, error))
        return false;
    if (strcmp(direction, "upload") != 0 && strcmp(direction, "download") != 0) {
        *ret_argument = "direction";
        return fail_code(error, KILN_ERROR_USAGE,
                         "'direction' must be \"upload\" or \"download\", not \"%s\"", direction);
    }
    if (!parse_mode(args, &mode, error)) {
        *ret_argument = "mode";
        return false;
    }
    return check_destination(args, ret_argument, error) && check_download(args, ret_argument, error);
}

static bool source_names(const json_t *args, const ProvisionerHost *host, char ***ret, GError **error)
{
    return argument_expanded_list(args, argument_given(args, "source") ? "source" : "sources", host, ret,
                                  error);
}

static bool file_inputs(const json_t *args, const ProvisionerHost *host, GPtrArray *inputs, GError **error)
{
    g_auto(GStrv) names = NULL;
    char *path;
    struct stat st;

    if (is_download(args))
        return true;
    if (!source_names(args, host, &names, error))
        return false;
    for (char **name = names; *name; name++) {
        /* `generated`: an earlier step, shell-local say, makes it; whoever runs the step finds out */
        if (argument_bool(args, "generated", false)) {
            if (!host_file_find("file", *name, host, &path, &st, NULL))
                continue;
            g_free(path);
        }
        if (!host_file_add_inputs("file", *name, host, inputs, error))
            return false;
    }
    return true;
}

/* ---- upload ---- */

typedef struct Upload {
    const ProvisionerHost *host;
    Guest *guest;
    uint32_t uid, gid;
    uint16_t mode;    /* MODE_KEEP, or for every file */
    const char *into; /* folder of the guest that a walk fills */
} Upload;

static GuestFile meta_of(const Upload *up, const struct stat *st)
{
    bool keep = up->mode == MODE_KEEP || S_ISDIR(st->st_mode);
    return (GuestFile){.uid = up->uid,
                       .gid = up->gid,
                       .mode = keep ? st->st_mode & 07777 : up->mode,
                       .mtime = up->host->epoch};
}

/* A folder that exists keeps its owner and mode: uploading into /etc must not change /etc. */
static bool make_folder(const Upload *up, const char *path, const GuestFile *meta, GError **error)
{
    char type;

    if (!guest_type(up->guest, path, &type, error))
        return false;
    if (type && type != 'd')
        return fail(error, "file provisioner: '%s' in the guest is not a folder", path);
    return type ? true : up->guest->ops->mkdir(up->guest, path, meta, error);
}

static bool make_parent(const Upload *up, const char *path, GError **error)
{
    const GuestFile meta = {.uid = up->uid, .gid = up->gid, .mode = 0755, .mtime = up->host->epoch};
    g_autofree char *parent = g_path_get_dirname(path);

    return make_folder(up, parent, &meta, error);
}

static bool upload_file(const Upload *up, const char *from, const struct stat *st, const char *to,
                        GError **error)
{
    const GuestFile meta = meta_of(up, st);
    auto_fd int fd = open(from, O_RDONLY | O_CLOEXEC | O_NOCTTY);

    if (fd < 0)
        return fail_errno(error, "read '%s'", from);
    if (!up->guest->ops->put(up->guest, fd, to, &meta, error))
        return fail_prefix(error, "upload '%s'", from);
    return true;
}

static bool upload_entry(const char *path, const char *relative, const struct stat *st, void *arg,
                         GError **error)
{
    const Upload *up = arg;
    g_autofree char *to = g_build_filename(up->into, relative, NULL), *target = NULL;
    const GuestFile meta = meta_of(up, st);

    if (S_ISDIR(st->st_mode))
        return make_folder(up, to, &meta, error);
    if (S_ISREG(st->st_mode))
        return upload_file(up, path, st, to, error);
    return host_file_readlink(path, &target, error) && up->guest->ops->symlink(up->guest, target, to, error);
}

static bool upload_folder(Upload *up, const char *name, const char *path, const struct stat *st,
                          const char *destination, GError **error)
{
    g_autofree char *bare = g_path_get_basename(path); /* of a path that ends in '/': the last component */
    g_autofree char *into =
        g_str_has_suffix(name, "/") ? g_strdup(destination) : g_build_filename(destination, bare, NULL);
    const GuestFile meta = meta_of(up, st);

    if (!make_parent(up, into, error) || !make_folder(up, into, &meta, error))
        return false;
    up->into = into;
    bool ok = host_file_walk("file", path, upload_entry, up, error);
    up->into = NULL;
    return ok;
}

/* Where a single file goes: see the top. */
static bool file_target(const Upload *up, const char *destination, bool is_folder, const char *path,
                        char **ret, GError **error)
{
    g_autofree char *bare = g_path_get_basename(path);
    char type = 0;

    if (!is_folder && !guest_type(up->guest, destination, &type, error))
        return false;
    *ret = is_folder || type == 'd' ? g_build_filename(destination, bare, NULL) : g_strdup(destination);
    return true;
}

static bool upload_source(Upload *up, const char *name, const char *destination, bool is_folder,
                          GError **error)
{
    g_autofree char *path = NULL, *to = NULL;
    struct stat st;

    if (!host_file_find("file", name, up->host, &path, &st, error))
        return false;
    if (S_ISDIR(st.st_mode))
        return upload_folder(up, name, path, &st, destination, error);
    if (!S_ISREG(st.st_mode))
        return fail(error, "file provisioner: \"%s\" is neither file nor folder", name);
    return file_target(up, destination, is_folder, path, &to, error) && make_parent(up, to, error) &&
           upload_file(up, path, &st, to, error);
}

static bool upload_content(const json_t *args, Upload *up, const char *destination, GError **error)
{
    g_autofree char *text = NULL;
    const GuestFile meta = {.uid = up->uid,
                            .gid = up->gid,
                            .mtime = up->host->epoch,
                            .mode = up->mode == MODE_KEEP ? 0644 : up->mode};

    return argument_expanded(args, "content", "", up->host, NULL, &text, error) &&
           make_parent(up, destination, error) &&
           guest_put_bytes(up->guest, destination, text, strlen(text), &meta, error);
}

/* Numbers stand for themselves; names are looked up in the guest's own /etc/passwd or /etc/group. */
static bool account_id(Guest *guest, const char *name, const char *database, uint32_t *ret, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    guint64 value;

    if (g_ascii_string_to_unsigned(name, 10, 0, G_MAXUINT32 - 1, &value, NULL)) {
        *ret = (uint32_t)value;
        return true;
    }
    if (!guest_get_bytes(guest, database, ACCOUNTS_SIZE_MAX, &bytes, error))
        return false;
    g_auto(GStrv) lines = g_strsplit(bytes ? g_bytes_get_data(bytes, NULL) : "", "\n", -1);
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) fields = g_strsplit(*line, ":", 4);
        if (g_strv_length(fields) >= 3 && strcmp(fields[0], name) == 0 &&
            g_ascii_string_to_unsigned(fields[2], 10, 0, G_MAXUINT32 - 1, &value, NULL)) {
            *ret = (uint32_t)value;
            return true;
        }
    }
    return fail(error, "file provisioner: \"%s\" is not in the guest's %s", name, database);
}

static bool find_owner(const json_t *args, Upload *up, GError **error)
{
    g_autofree char *owner = argument_text(args, "owner", "0"), *group = argument_text(args, "group", "0");

    return account_id(up->guest, owner, "/etc/passwd", &up->uid, error) &&
           account_id(up->guest, group, "/etc/group", &up->gid, error);
}

static bool run_upload(const json_t *args, const ProvisionerHost *host, Guest *guest, const char *destination,
                       GError **error)
{
    Upload up = {.host = host, .guest = guest};
    g_auto(GStrv) names = NULL;

    if (destination[0] != '/')
        return fail(error,
                    "file provisioner: 'destination' must be an absolute path in the guest, not \"%s\"",
                    destination);
    if (!parse_mode(args, &up.mode, error) || !find_owner(args, &up, error))
        return false;
    if (argument_given(args, "content"))
        return upload_content(args, &up, destination, error);
    if (!source_names(args, host, &names, error))
        return false;
    bool is_folder = g_str_has_suffix(destination, "/") || g_strv_length(names) > 1;
    for (char **name = names; *name; name++)
        if (!upload_source(&up, *name, destination, is_folder, error))
            return false;
    return true;
}

/* ---- download ---- */

static bool download_file(Guest *guest, const char *from, const char *to, mode_t mode, GError **error)
{
    g_autofree char *temporary = g_strdup_printf("%s.kiln-XXXXXX", to), *parent = g_path_get_dirname(to);
    auto_fd int fd = -1;

    if (!file_make_dirs(parent, 0777, error))
        return false;
    fd = g_mkstemp_full(temporary, O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_errno(error, "write '%s'", to);
    bool ok = guest->ops->get(guest, from, fd, DOWNLOAD_FILE_MAX, error);
    if (ok && fchmod(fd, mode & 0777) < 0) /* never the setuid bit: the guest chose it */
        ok = fail_errno(error, "set the mode of '%s'", to);
    ok = ok && file_publish(AT_FDCWD, temporary, AT_FDCWD, to, FILE_SYNC_YES, error);
    if (!ok)
        (void)unlink(temporary); /* the error is told already */
    return ok ? true : fail_prefix(error, "download '%s'", from);
}

static bool name_is_plain(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool download(Guest *guest, const char *from, const char *to, unsigned depth, unsigned *left,
                     GError **error)
{
    GuestFile meta = {0};
    g_auto(GStrv) names = NULL;
    char type = 0;

    if (!guest->ops->stat(guest, from, &type, &meta, error))
        return false;
    if (!type && depth == 0)
        return fail_code(error, KILN_ERROR_NOT_FOUND,
                         "file provisioner: cannot read \"%s\" in the guest: no such file", from);
    if (type == 'f')
        return download_file(guest, from, to, meta.mode, error);
    if (type != 'd')
        return true; /* dangling links, devices, pipes: nothing that a host could use */
    if (depth > HOST_DEPTH_MAX)
        return fail(error, "file provisioner: '%s' in the guest is nested too deeply", from);
    if (!file_make_dirs(to, 0777, error) || !guest->ops->list(guest, from, &names, error))
        return false;
    for (char **name = names; *name; name++) {
        if (!name_is_plain(*name))
            return fail(error, "file provisioner: the guest gave a name that is none in '%s'", from);
        if ((*left)-- == 0)
            return fail(error, "file provisioner: more than %u files to download", DOWNLOAD_FILES_MAX);
        g_autofree char *child = g_build_filename(from, *name, NULL),
                        *child_to = g_build_filename(to, *name, NULL);
        if (!download(guest, child, child_to, depth + 1, left, error))
            return false;
    }
    return true;
}

static bool run_download(const json_t *args, const ProvisionerHost *host, Guest *guest,
                         const char *destination, GError **error)
{
    g_auto(GStrv) names = NULL;
    unsigned left = DOWNLOAD_FILES_MAX;
    g_autofree char *base = g_path_is_absolute(destination)
                                ? g_strdup(destination)
                                : g_build_filename(host->cwd ? host->cwd : ".", destination, NULL);

    if (!source_names(args, host, &names, error))
        return false;
    bool is_folder = g_str_has_suffix(destination, "/") || g_strv_length(names) > 1 ||
                     g_file_test(base, G_FILE_TEST_IS_DIR);
    for (char **name = names; *name; name++) {
        g_autofree char *bare = g_path_get_basename(*name);
        bool content_only = g_str_has_suffix(*name, "/");
        g_autofree char *to =
            is_folder && !content_only ? g_build_filename(base, bare, NULL) : g_strdup(base);
        if (**name != '/')
            return fail(
                error,
                "file provisioner: 'source' of a download must be an absolute path in the guest, not \"%s\"",
                *name);
        if (!download(guest, *name, to, 0, &left, error))
            return false;
    }
    return true;
}

static bool file_run(const json_t *args, const ProvisionerHost *host, Guest *guest, GError **error)
{
    g_autofree char *destination = NULL;

    if (!argument_expanded(args, "destination", "", host, NULL, &destination, error))
        return false;
    return is_download(args) ? run_download(args, host, guest, destination, error)
                             : run_upload(args, host, guest, destination, error);
}

const ProvisionerOps provisioner_file = {
    .type = "file",
    .arguments = argument_names,
    .needs_guest = true,
    .check = file_check,
    .inputs = file_inputs,
    .run = file_run,
    .has_effects = is_download,
};
