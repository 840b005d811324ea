/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/crash-model-support.h"

#include "base/file.h"
#include "base/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *crash_mode_name(CrashMode mode)
{
    static const char *const names[] = {"keep",      "drop",         "names",      "data",  "torn-512", "torn-4k", "sectors-512",
                                        "sectors-4k", "whole-writes"};

    return names[mode];
}

/* --- loading --- */

typedef struct Loader {
    CrashLog *log;
    GHashTable *nodes; /* inode number -> node + 1 */
} Loader;

static unsigned node_of(Loader *l, uint64_t inode, bool fresh)
{
    gpointer found = fresh ? NULL : g_hash_table_lookup(l->nodes, GSIZE_TO_POINTER(inode));

    if (!found) {
        found = GUINT_TO_POINTER(++l->log->nodes);
        g_hash_table_insert(l->nodes, GSIZE_TO_POINTER(inode), found);
    }
    return GPOINTER_TO_UINT(found) - 1;
}

static void load_event(Loader *l, const CrashEvent *event)
{
    CrashOp op = {.kind = (CrashKind)event->kind, .offset = event->offset, .size = event->size, .name = event->name, .to_name = event->to_name,
                  .data = (const uint8_t *)(event + 1)};

    if (event->kind == CRASH_BASE) {
        if (event->offset && !l->log->first)
            l->log->first = l->log->ops->len;
        (void)node_of(l, event->node, false); /* the first one is node 0; a later process has the same */
        return;
    }
    if (event->folder)
        op.folder = node_of(l, event->folder, false);
    if (event->to)
        op.to = node_of(l, event->to, false);
    if (event->node)
        op.node = node_of(l, event->node, event->kind == CRASH_CREATE || event->kind == CRASH_MKDIR);
    g_ptr_array_set_size(l->log->names, (gint)l->log->nodes);
    if (event->kind == CRASH_CREATE || event->kind == CRASH_MKDIR)
        l->log->names->pdata[op.node] = (gpointer)op.name;
    g_array_append_val(l->log->ops, op);
}

CrashLog *crash_log_load(const char *path)
{
    CrashLog *log = g_new0(CrashLog, 1);
    Loader loader = {log, g_hash_table_new(NULL, NULL)};
    const uint8_t *at, *end;
    gsize size;

    g_assert_true(file_load(AT_FDCWD, path, 1u << 30, &log->bytes, NULL));
    log->ops = g_array_new(FALSE, FALSE, sizeof(CrashOp));
    log->names = g_ptr_array_new();
    at = g_bytes_get_data(log->bytes, &size);
    for (end = at + size; (size_t)(end - at) >= sizeof(CrashEvent);) {
        const CrashEvent *event = (const CrashEvent *)(const void *)at;

        if ((size_t)(end - at) < sizeof(CrashEvent) + CRASH_ROUND(event->size))
            break; /* its process was killed at it */
        load_event(&loader, event);
        at += sizeof(CrashEvent) + CRASH_ROUND(event->size);
    }
    g_hash_table_destroy(loader.nodes);
    return log;
}

void crash_log_free(CrashLog *log)
{
    if (!log)
        return;
    g_array_unref(log->ops);
    g_ptr_array_unref(log->names);
    g_bytes_unref(log->bytes);
    g_free(log);
}

guint crash_log_first(const CrashLog *log)
{
    return log->first;
}

static const CrashOp *op_at(const CrashLog *log, guint i)
{
    return &g_array_index(log->ops, CrashOp, i);
}

const char *crash_log_mark(const CrashLog *log, guint prefix)
{
    while (prefix-- > 0)
        if (op_at(log, prefix)->kind == CRASH_MARK)
            return (const char *)op_at(log, prefix)->data;
    return "";
}

/* --- names --- */

typedef struct Replay {
    const CrashLog *log;
    guint prefix;
    CrashMode mode;
    uint32_t seed;
    guint *synced;       /* per node: operations before this one are on the disk */
    GHashTable **names;  /* per node that is a folder: name -> node + 1, after the crash */
    GHashTable **live;   /* the same as the processes saw it */
    GHashTable *blocked; /* "folder/name": an operation on it was lost, so are all later ones */
} Replay;

/* A stream of its own for each question, so that a point can be made again alone. */
static uint32_t dice(const Replay *r, uint32_t a, uint32_t b)
{
    uint32_t x = r->seed * 2654435761u ^ a * 2246822519u ^ b * 3266489917u ^ r->prefix * 668265263u;

    x ^= x >> 15;
    x *= 2246822519u;
    x ^= x >> 13;
    x *= 3266489917u;
    return x ^ x >> 16;
}

static GHashTable *folder_of(GHashTable **folders, unsigned node)
{
    if (!folders[node])
        folders[node] = g_hash_table_new(g_str_hash, g_str_equal);
    return folders[node];
}

static bool name_survives(Replay *r, guint i, unsigned folder, const char *name)
{
    g_autofree char *key = g_strdup_printf("%u/%s", folder, name);
    bool lost;

    if (i < r->synced[folder])
        return true;
    switch (r->mode) {
    case CRASH_DROP:
    case CRASH_DATA:
        return false;
    case CRASH_KEEP:
    case CRASH_NAMES:
    case CRASH_TORN_512:
    case CRASH_TORN_4K:
        return true;
    default:
        break;
    }
    if (g_hash_table_contains(r->blocked, key))
        return false;
    lost = dice(r, i, folder) % 3 == 0;
    if (lost)
        g_hash_table_add(r->blocked, g_steal_pointer(&key));
    return !lost;
}

static void rename_name(Replay *r, guint i, const CrashOp *op)
{
    gpointer moved = g_hash_table_lookup(folder_of(r->live, op->folder), op->name);

    (void)g_hash_table_remove(folder_of(r->live, op->folder), op->name);
    g_hash_table_insert(folder_of(r->live, op->to), (gpointer)op->to_name, moved);
    if (!name_survives(r, i, op->to, op->to_name))
        return;
    g_hash_table_insert(folder_of(r->names, op->to), (gpointer)op->to_name, moved);
    if (op->to == op->folder || name_survives(r, i, op->folder, op->name))
        (void)g_hash_table_remove(folder_of(r->names, op->folder), op->name);
}

static void replay_name(Replay *r, guint i, const CrashOp *op)
{
    gpointer node = GUINT_TO_POINTER(op->node + 1);

    switch (op->kind) {
    case CRASH_CREATE:
    case CRASH_MKDIR:
        g_hash_table_insert(folder_of(r->live, op->folder), (gpointer)op->name, node);
        if (op->kind == CRASH_MKDIR)
            (void)folder_of(r->names, op->node);
        if (name_survives(r, i, op->folder, op->name))
            g_hash_table_insert(folder_of(r->names, op->folder), (gpointer)op->name, node);
        break;
    case CRASH_UNLINK:
        (void)g_hash_table_remove(folder_of(r->live, op->folder), op->name);
        if (name_survives(r, i, op->folder, op->name))
            (void)g_hash_table_remove(folder_of(r->names, op->folder), op->name);
        break;
    case CRASH_RENAME:
        rename_name(r, i, op);
        break;
    default:
        break;
    }
}

/* --- bytes --- */

typedef struct Content {
    GByteArray *bytes;
    uint64_t size;       /* what the inode says; the bytes may reach further or less far */
    GHashTable *blocked; /* sectors that lost a write, so lose all later ones */
} Content;

static unsigned sector_size(CrashMode mode)
{
    return mode == CRASH_TORN_512 || mode == CRASH_SECTORS_512 ? 512 : 4096;
}

/* Never all of it with the same odds: the interesting states are those where nearly all or nearly nothing is there. */
static bool sector_survives(Replay *r, guint i, const CrashOp *op, Content *c, uint64_t sector)
{
    uint32_t chance;

    switch (r->mode) {
    case CRASH_DROP:
    case CRASH_NAMES:
        return false;
    case CRASH_KEEP:
    case CRASH_DATA:
        return true;
    case CRASH_TORN_512:
    case CRASH_TORN_4K:
        return i + 1 < r->prefix || sector < op->offset / sector_size(r->mode) + dice(r, 1, 2) % (op->size / sector_size(r->mode) + 1);
    default:
        break;
    }
    if (g_hash_table_contains(c->blocked, GSIZE_TO_POINTER(sector + 1)))
        return false;
    chance = 1 + dice(r, op->node, 77) % 7;
    if (dice(r, i, r->mode == CRASH_WRITES ? 0 : (uint32_t)sector) % 8 >= chance)
        return true;
    g_hash_table_add(c->blocked, GSIZE_TO_POINTER(sector + 1));
    return false;
}

static void copy_in(Content *c, uint64_t offset, const uint8_t *data, uint64_t size)
{
    guint had = c->bytes->len;

    if (offset + size > had) {
        g_byte_array_set_size(c->bytes, (guint)(offset + size));
        memset(c->bytes->data + had, 0, offset + size - had);
    }
    if (data)
        memcpy(c->bytes->data + offset, data, size);
    else
        memset(c->bytes->data + offset, 0, size);
}

static uint64_t size_after(const CrashOp *op, uint64_t size)
{
    return op->kind == CRASH_TRUNCATE ? op->offset : MAX(size, op->offset + op->size);
}

static void apply_synced(const CrashOp *op, Content *c)
{
    if (op->kind == CRASH_WRITE)
        copy_in(c, op->offset, op->data, op->size);
    else if (op->offset < c->bytes->len)
        g_byte_array_set_size(c->bytes, (guint)op->offset);
    c->size = size_after(op, c->size);
}

static void apply_pending(Replay *r, guint i, const CrashOp *op, Content *c)
{
    uint64_t end = op->kind == CRASH_WRITE ? op->offset + op->size : c->bytes->len, step = sector_size(r->mode);
    bool any = op->kind == CRASH_TRUNCATE && sector_survives(r, i, op, c, op->offset / step);

    for (uint64_t at = op->offset; at < end;) {
        uint64_t next = MIN((at / step + 1) * step, end);

        if (op->kind == CRASH_TRUNCATE ? any : sector_survives(r, i, op, c, at / step)) {
            copy_in(c, at, op->kind == CRASH_WRITE ? op->data + (at - op->offset) : NULL, next - at);
            any = true;
        }
        at = next;
    }
    if (r->mode == CRASH_SECTORS_512 || r->mode == CRASH_SECTORS_4K ? dice(r, op->node, 5) % 4 != 0 || dice(r, i, 6) % 2 : any)
        c->size = size_after(op, c->size);
}

static void write_file(Replay *r, unsigned node, int dirfd, const char *name)
{
    Content c = {.bytes = g_byte_array_new(), .blocked = g_hash_table_new(NULL, NULL)};
    auto_fd int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    for (guint i = 0; i < r->prefix; i++) {
        const CrashOp *op = op_at(r->log, i);

        if (op->node != node || (op->kind != CRASH_WRITE && op->kind != CRASH_TRUNCATE))
            continue;
        if (i < r->synced[node])
            apply_synced(op, &c);
        else
            apply_pending(r, i, op, &c);
    }
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, c.bytes->data, MIN(c.bytes->len, c.size)), ==, (gssize)MIN(c.bytes->len, c.size));
    g_assert_cmpint(ftruncate(fd, (off_t)c.size), ==, 0);
    g_byte_array_unref(c.bytes);
    g_hash_table_destroy(c.blocked);
}

static void write_folder(Replay *r, unsigned node, int dirfd)
{
    GHashTableIter iter;
    gpointer name, value;

    g_hash_table_iter_init(&iter, folder_of(r->names, node));
    while (g_hash_table_iter_next(&iter, &name, &value)) {
        unsigned child = GPOINTER_TO_UINT(value) - 1;
        auto_fd int fd = -1;

        if (!r->names[child]) {
            write_file(r, child, dirfd, name);
            continue;
        }
        g_assert_cmpint(mkdirat(dirfd, name, 0755), ==, 0);
        fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        g_assert_cmpint(fd, >=, 0);
        write_folder(r, child, fd);
    }
}

static void find_syncs(Replay *r)
{
    for (guint i = 0; i < r->prefix; i++) {
        const CrashOp *op = op_at(r->log, i);

        if (op->kind == CRASH_SYNC)
            r->synced[op->node] = i;
        else if (op->kind == CRASH_SYNC_DIR)
            r->synced[op->folder] = i;
    }
}

void crash_log_replay(const CrashLog *log, guint prefix, CrashMode mode, uint32_t seed, const char *out)
{
    Replay r = {log, prefix, mode, seed, g_new0(guint, log->nodes), g_new0(GHashTable *, log->nodes), g_new0(GHashTable *, log->nodes),
                g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL)};
    auto_fd int dirfd = open(out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    g_assert_cmpint(dirfd, >=, 0);
    find_syncs(&r);
    for (guint i = 0; i < prefix; i++)
        replay_name(&r, i, op_at(log, i));
    write_folder(&r, 0, dirfd);
    for (unsigned i = 0; i < log->nodes; i++) {
        g_clear_pointer(&r.names[i], g_hash_table_destroy);
        g_clear_pointer(&r.live[i], g_hash_table_destroy);
    }
    g_hash_table_destroy(r.blocked);
    g_free(r.names);
    g_free(r.live);
    g_free(r.synced);
}
