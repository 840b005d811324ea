/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The work that sources share. The longest piece, source_add_files(), shows how a tree grows without its contents
 * being read: the new file space is the old one as parent with the new contents behind its end.
 */
#include "baker/source-common.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/scope.h"
#include "base/units.h"

#include <fcntl.h>
#include <sys/stat.h>

#define SIZE_MIN ((uint64_t)80 << 20) /* boot loader, ESP and a root that holds anything */
#define SIZE_UNIT ((uint64_t)1 << 20)
#define SIZE_MAX_DISK ((uint64_t)16 << 40)
#define MEMO_MAX (4 << 20)

void source_state_clear(SourceState *state)
{
    json_decref(state->info);
    *state = (SourceState){0};
}

bool source_check_strings(const json_t *args, const char *const *names, const char **ret_argument, GError **error)
{
    for (; *names; names++) {
        const char *text;

        if (!json_get_string(args, *names, NULL, &text, error)) {
            *ret_argument = *names;
            return false;
        }
    }
    return true;
}

bool source_size_argument(const json_t *args, const char *otherwise, uint64_t *ret, const char **ret_argument,
                          GError **error)
{
    const json_t *value = json_object_get(args, "size");
    const char *text = otherwise;
    uint64_t size = 0;

    *ret_argument = "size";
    if (json_is_integer(value)) {
        size = json_integer_value(value) > 0 ? (uint64_t)json_integer_value(value) : 1;
    } else {
        if (!json_get_string(args, "size", otherwise, &text, error))
            return false;
        if (text && !units_parse_size(text, &size, error))
            return fail_prefix(error, "size");
    }
    if ((text || value) && (size < SIZE_MIN || size > SIZE_MAX_DISK || size % SIZE_UNIT != 0))
        return fail_code(error, KILN_ERROR_USAGE, "size must be whole mebibytes between 80M and 16T");
    *ret = size;
    *ret_argument = NULL;
    return true;
}

const char *source_keeps_still(const SourceContext *context)
{
    return context->offline ? "--offline" : context->pull == PULL_NEVER ? "-pull=never" : NULL;
}

char *source_find_file(const SourceContext *context, const char *path)
{
    g_autofree char *beside = NULL;

    if (g_path_is_absolute(path) || !context->template_dir)
        return g_strdup(path);
    beside = g_build_filename(context->template_dir, path, NULL);
    if (access(beside, F_OK) != 0 && access(path, F_OK) == 0)
        return g_strdup(path);
    return g_steal_pointer(&beside);
}

bool source_memo_get(Store *store, const char *key, json_t **ret, GError **error)
{
    g_autofree char *text = NULL;

    *ret = NULL;
    if (!store_memo_get(store, key, &text, error))
        return false;
    if (text && !json_parse(text, strlen(text), MEMO_MAX, key, ret, NULL))
        log_verbose("what the store remembers as '%s' cannot be read and is made again", key);
    return true;
}

bool source_memo_put(Store *store, const char *key, const json_t *value, const TreeStored *keeps, GError **error)
{
    g_autofree char *text = json_canonical(value);

    return store_memo_put(store, key, text, keeps ? &keeps->tree : NULL, keeps ? &keeps->files : NULL, error);
}

/* What must be unchanged for a file to count as the one that was hashed. */
static char *file_signature(const char *path, const struct stat *st)
{
    g_autofree char *real = g_canonicalize_filename(path, NULL);

    return g_strdup_printf("file:%s:%ju:%ju:%jd:%jd.%09ld:%jd.%09ld", real, (uintmax_t)st->st_dev,
                           (uintmax_t)st->st_ino, (intmax_t)st->st_size, (intmax_t)st->st_mtim.tv_sec,
                           st->st_mtim.tv_nsec, (intmax_t)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
}

bool source_file_digest(const SourceContext *context, const char *path, Digest *ret, GError **error)
{
    auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    g_autofree char *key = NULL, *known = NULL;
    char hex[DIGEST_HEX_SIZE];
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_errno(error, "open '%s'", path);
    if (!S_ISREG(st.st_mode))
        return fail(error, "'%s' is not a regular file", path);
    key = file_signature(path, &st);
    if (!store_memo_get(context->store, key, &known, error))
        return false;
    if (known && digest_parse(known, ret))
        return true;
    if (!digest_of_fd(fd, ret, error))
        return fail_prefix(error, "'%s'", path);
    /* A file that was touched in this very second could change again without a new time. */
    if (st.st_ctim.tv_sec + 2 < (time_t)(g_get_real_time() / G_USEC_PER_SEC))
        return store_memo_put(context->store, key, digest_to_hex(ret, hex), NULL, NULL, error);
    return true;
}

bool source_store_tree(Store *store, Tree *tree, StoreMap *files, TreeStored *ret, StoreMap **ret_files, GError **error)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;

    if (!tree_check(tree, error) || !store_writer_open(store, BLOCK_PUBLIC, &writer, error) ||
        !tree_store(store, writer, tree, files, &space, error) || !store_writer_commit(writer, error) ||
        !tree_stored_result(store, tree, space, ret, error))
        return false;
    return !ret_files || store_map_open(store, &ret->files, ret_files, error);
}

/* Folders above @path that are missing. Links on the way (a merged /usr) are the caller's to avoid. */
static void add_parents(Tree *tree, const char *path, int64_t epoch)
{
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        g_autofree char *parent = g_strndup(path, (gsize)(slash - path));
        TreeEntry *entry;

        if (tree_find(tree, parent))
            continue;
        entry = tree_entry_new(parent, 'd');
        entry->mode = 0755;
        entry->mtime = epoch;
        tree_put(tree, entry);
    }
}

static bool write_content(MapWriter *space, uint64_t *end, TreeEntry *entry, const char *text, GError **error)
{
    size_t size = strlen(text), padded = (size + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;
    g_autofree char *buf = g_malloc0(padded + 1);

    memcpy(buf, text, size);
    entry->size = size;
    digest_of(text, size, &entry->sha256);
    entry->data_offset = *end;
    if (size > 0 && !map_writer_write(space, *end, buf, padded, error))
        return false;
    *end += padded;
    return true;
}

static bool add_one(Tree *tree, const SourceAddition *add, int64_t epoch, MapWriter *space, uint64_t *end, GError **error)
{
    TreeEntry *entry = tree_entry_new(add->path, add->type);

    entry->mode = add->type == 'f' ? 0644 : add->type == 'd' ? 0755 : 0777;
    entry->mtime = epoch;
    if (add->type == 'l')
        entry->target = g_strdup(add->text);
    if (add->type == 'f' && !write_content(space, end, entry, add->text, error)) {
        tree_entry_free(entry);
        return false;
    }
    add_parents(tree, add->path, epoch);
    tree_put(tree, entry);
    return true;
}

static uint64_t additions_size(const SourceAddition *additions, size_t count)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++)
        if (additions[i].type == 'f')
            sum += (strlen(additions[i].text) + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;
    return sum;
}

bool source_add_files(Store *store, Tree *tree, StoreMap *files, const SourceAddition *additions, size_t count,
                      int64_t epoch, StoreMap **ret_files, GError **error)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) space = NULL;
    uint64_t end = (store_map_size(files) + STORE_BLOCK_SIZE - 1) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;
    MapResult result;

    if (!store_writer_open(store, BLOCK_PUBLIC, &writer, error) ||
        !map_writer_new(writer, end + additions_size(additions, count), files, &space, error))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!add_one(tree, &additions[i], epoch, space, &end, error))
            return false;
    if (!map_writer_finish(space, error) || !store_writer_commit(writer, error))
        return false;
    map_writer_result(space, &result);
    return store_map_open(store, &result.digest, ret_files, error);
}

/* Of a working disk whose published form gets its size at the seal: free space costs nothing here. */
#define WORKING_ROOM ((uint64_t)4 << 30)

bool source_render(const SourceContext *context, const RenderSpec *given, SourceState *state, GError **error)
{
    RenderSpec spec = *given;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) disk = NULL;
    MapResult result;

    if (!tree_load(context->store, &state->tree, &tree, &files, error) ||
        !store_writer_open(context->store, BLOCK_PUBLIC, &writer, error))
        return false;
    if (spec.size == 0)
        spec.size = render_size_for(tree) + WORKING_ROOM;
    if (!render_disk(context->store, writer, tree, files, &spec, &disk, error) || !store_writer_commit(writer, error))
        return false;
    map_writer_result(disk, &result);
    state->map = result.digest;
    state->size = result.size;
    state->layout = LAYOUT_RENDERED;
    tree_digest(tree, &state->content);
    return true;
}

int64_t source_parse_time(const char *text)
{
    g_autoptr(GTimeZone) utc = g_time_zone_new_utc();
    g_autoptr(GDateTime) time = text ? g_date_time_new_from_iso8601(text, utc) : NULL;

    return time ? g_date_time_to_unix(time) : -1;
}
