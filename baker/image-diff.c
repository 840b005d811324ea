/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two sorted lists side by side, twice: packages and files.
 */
#include "baker/image-diff.h"

#include "base/error.h"
#include "base/file.h"
#include "base/printable.h"
#include "base/process.h"
#include "base/scope.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PATCH_MAX ((size_t)1 << 20)

const char *const file_part_names[FILE_PARTS] = {"type", "content", "mode", "owner", "xattrs", "time", "links"};

void image_diff_free(ImageDiff *diff)
{
    if (!diff)
        return;
    g_clear_pointer(&diff->packages, g_array_unref);
    g_clear_pointer(&diff->files, g_array_unref);
    g_clear_pointer(&diff->packages_a, package_list_free);
    g_clear_pointer(&diff->packages_b, package_list_free);
    g_clear_pointer(&diff->owners_a, g_hash_table_unref);
    g_clear_pointer(&diff->owners_b, g_hash_table_unref);
    g_free(diff);
}

/* --- packages ------------------------------------------------------------------------------ */

static int compare_names(const Package *a, const Package *b)
{
    int order = strcmp(a->type, b->type);

    return order ? order : strcmp(a->name, b->name);
}

/* How many from @i on share type and name: a kernel's versions, or a module that many programs hold. */
static guint run_length(const GPtrArray *list, guint i)
{
    guint n = 1;

    while (i + n < list->len && compare_names(list->pdata[i], list->pdata[i + n]) == 0)
        n++;
    return n;
}

static bool holds_version(const GPtrArray *list, guint from, guint count, const Package *package)
{
    for (guint i = from; i < from + count; i++) {
        const Package *one = list->pdata[i];

        if (strcmp(one->version, package->version) == 0 && g_strcmp0(one->architecture, package->architecture) == 0)
            return true;
    }
    return false;
}

/* What only one side has, paired as far as it goes: the rest came or went. */
static void compare_runs(ImageDiff *diff, guint a, guint a_count, guint b, guint b_count)
{
    const GPtrArray *la = diff->packages_a->all, *lb = diff->packages_b->all;
    guint i = a, k = b;

    while (i < a + a_count || k < b + b_count) {
        PackageChange change = {NULL, NULL};

        while (i < a + a_count && holds_version(lb, b, b_count, la->pdata[i]))
            i++;
        while (k < b + b_count && holds_version(la, a, a_count, lb->pdata[k]))
            k++;
        if (i < a + a_count)
            change.from = la->pdata[i++];
        if (k < b + b_count)
            change.to = lb->pdata[k++];
        if (change.from || change.to)
            g_array_append_val(diff->packages, change);
    }
}

static void compare_packages(ImageDiff *diff)
{
    const GPtrArray *a = diff->packages_a->all, *b = diff->packages_b->all;
    guint i = 0, k = 0;

    while (i < a->len || k < b->len) {
        int order = i == a->len ? 1 : k == b->len ? -1 : compare_names(a->pdata[i], b->pdata[k]);
        guint a_count = order <= 0 ? run_length(a, i) : 0, b_count = order >= 0 ? run_length(b, k) : 0;

        compare_runs(diff, i, a_count, k, b_count);
        i += a_count;
        k += b_count;
    }
}

/* --- files ----------------------------------------------------------------------------------- */

typedef struct Collect {
    const ImageRoot *a, *b;
    ImageDiff *diff;
} Collect;

static bool same_content(const TreeEntry *a, const TreeEntry *b)
{
    if (a->type == 'f')
        return a->size == b->size && digest_equal(&a->sha256, &b->sha256);
    if (a->type == 'l')
        return strcmp(a->target, b->target) == 0;
    return a->major == b->major && a->minor == b->minor;
}

static unsigned changed_parts(const Collect *collect, const TreeEntry *name_a, const TreeEntry *name_b)
{
    const TreeEntry *a = tree_content_entry(collect->a->tree, name_a), *b = tree_content_entry(collect->b->tree, name_b);
    unsigned parts = 0;

    if ((name_a->type == 'h') != (name_b->type == 'h') || (name_a->type == 'h' && strcmp(name_a->target, name_b->target) != 0))
        parts |= FILE_PART_LINKS;
    if (!a || !b)
        return parts;
    if (a->type != b->type)
        return parts | FILE_PART_TYPE;
    parts |= same_content(a, b) ? 0 : FILE_PART_CONTENT;
    parts |= a->mode == b->mode ? 0 : FILE_PART_MODE;
    parts |= a->uid == b->uid && a->gid == b->gid ? 0 : FILE_PART_OWNER;
    parts |= tree_xattrs_equal(a->xattrs, b->xattrs) ? 0 : FILE_PART_XATTRS;
    parts |= a->mtime == b->mtime ? 0 : FILE_PART_TIME;
    return parts;
}

static bool take_change(char what, const TreeEntry *a, const TreeEntry *b, void *arg)
{
    Collect *collect = arg;
    FileChange change = {.a = what == '+' ? NULL : a, .b = what == '-' ? NULL : b};
    const char *path = change.b ? b->path : a->path;

    if (change.a && change.b)
        change.parts = changed_parts(collect, a, b);
    change.package = g_hash_table_lookup(collect->diff->owners_b, path);
    if (!change.package)
        change.package = g_hash_table_lookup(collect->diff->owners_a, path);
    g_array_append_val(collect->diff->files, change);
    return true;
}

/* Further names of a file that changed: a tree says of them only whose names they are. */
static void add_link_changes(Collect *collect)
{
    Tree *a = collect->a->tree, *b = collect->b->tree;

    for (size_t i = 0; i < tree_count(b); i++) {
        const TreeEntry *name = tree_nth(b, i), *before = name->type == 'h' ? tree_find(a, name->path) : NULL;

        if (before && tree_entry_equal(before, name) && changed_parts(collect, before, name))
            (void)take_change('~', before, name, collect);
    }
}

static gint by_path(gconstpointer x, gconstpointer y)
{
    const FileChange *a = x, *b = y;

    return strcmp((a->b ? a->b : a->a)->path, (b->b ? b->b : b->a)->path);
}

bool image_diff(const ImageRoot *a, const ImageRoot *b, ImageDiff **ret, GError **error)
{
    g_autoptr(ImageDiff) diff = g_new0(ImageDiff, 1);
    Collect collect = {a, b, diff};

    diff->packages = g_array_new(FALSE, FALSE, sizeof(PackageChange));
    diff->files = g_array_new(FALSE, FALSE, sizeof(FileChange));
    diff->owners_a = package_owners_new();
    diff->owners_b = package_owners_new();
    if (!package_db_read(a->tree, a->files, &diff->packages_a, error) || !package_db_read(b->tree, b->files, &diff->packages_b, error) ||
        !package_owners(a->tree, a->files, true, diff->owners_a, error) || !package_owners(b->tree, b->files, true, diff->owners_b, error))
        return false;
    compare_packages(diff);
    tree_diff(a->tree, b->tree, take_change, &collect);
    add_link_changes(&collect);
    g_array_sort(diff->files, by_path);
    *ret = g_steal_pointer(&diff);
    return true;
}

/* --- patches ------------------------------------------------------------------------------------ */

/* The content of one side in memory, for diff to read; -1 without an error where it is no text. Nothing: an empty one. */
static bool text_file(const ImageRoot *root, const TreeEntry *name, int *ret, GError **error)
{
    const TreeEntry *entry = name ? tree_content_entry(root->tree, name) : NULL;
    g_autoptr(GBytes) bytes = NULL;
    auto_fd int fd = memfd_create("kiln-diff", MFD_CLOEXEC);
    gsize size = 0;
    const char *data = NULL;

    *ret = -1;
    if (fd < 0)
        return fail_errno(error, "make a file in memory");
    if (name && (!entry || entry->type != 'f' || entry->size > PATCH_MAX))
        return true;
    if (entry && !tree_read_file(root->tree, root->files, name->path, PATCH_MAX, &bytes, error))
        return false;
    data = bytes ? g_bytes_get_data(bytes, &size) : NULL;
    if (size && (memchr(data, 0, size) || !g_utf8_validate(data, (gssize)size, NULL)))
        return true;
    if (!file_write_full(fd, data, size, "a file in memory", error))
        return false;
    *ret = g_steal_fd(&fd);
    return true;
}

static void take_line(const char *line, bool is_stderr, void *arg)
{
    if (!is_stderr)
        g_string_append_printf(arg, "%s\n", line);
}

/* A name as patch(1) reads it back: quoted where it must be, and with a tab behind a blank. */
static char *label(const char *side, const TreeEntry *entry)
{
    g_autofree char *name = entry ? g_strconcat(side, entry->path, NULL) : g_strdup("/dev/null"), *quoted = printable_quoted(name);

    return g_strconcat(quoted, strchr(quoted, ' ') ? "\t" : "", NULL);
}

bool image_diff_patch(const ImageRoot *a, const ImageRoot *b, const FileChange *change, char **ret, GError **error)
{
    const char *path = change->b ? change->b->path : change->a->path;
    g_autofree char *before = label("a/", change->a), *after = label("b/", change->b);
    g_autofree char *before_file = NULL, *after_file = NULL;
    g_autoptr(GString) text = g_string_new(NULL);
    auto_fd int from = -1, to = -1;
    int code = 0;

    *ret = NULL;
    if (!text_file(a, change->a, &from, error) || !text_file(b, change->b, &to, error))
        return false;
    if (from < 0 || to < 0)
        return true;
    before_file = g_strdup_printf("/proc/self/fd/%d", from);
    after_file = g_strdup_printf("/proc/self/fd/%d", to);
    if (!process_run(&(ProcessSpec){.argv = (const char *const[]){"diff", "-u", "--label", before, "--label", after, before_file, after_file, NULL},
                                    .keep_fds = (const int[]){from, to, -1},
                                    .on_line = take_line,
                                    .arg = text,
                                    .timeout = 60},
                     &code, error))
        return false;
    if (code > 1)
        return fail(error, "diff of '/%s' ended with status %d", path, code);
    *ret = g_string_free(g_steal_pointer(&text), FALSE);
    return true;
}
