/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ext4 into a tree, without a mount: a confined process, store/ext4-serve-walk.c, walks the file system and tells what it sees; here the tree
 * is made of it, and contents are read.
 *
 * Two passes. The first takes folders and inodes as they are told and hashes contents; then the file space can be laid out (equal content once);
 * the second refers the space to the very blocks of the disk. Between the passes a file's data_offset says where in @places its runs
 * are written down. Contents are hashed by all processors (store/ordered.h) while the walk goes on.
 *
 * Neither the file system nor what reads it is believed: every count below has a bound, runs must ascend and lie inside, names are
 * told once, and blocks are only taken over up to the end of the file: beyond it a guest could hide what it deleted.
 */
#include "store/ext4-read.h"

#include "store/bytes.h"
#include "store/ext4-session.h"
#include "store/ordered.h"
#include "store/tree-acl.h"
#include "store/tree-known.h"
#include "store/tree-space.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"

#include <string.h>
#include <sys/stat.h>

#define READ_ENTRIES_MAX 10000000
#define READ_WORDS_MAX ((uint64_t)1 << 28)   /* messages of the reader */
#define READ_PLACES_MAX ((size_t)512 << 20)  /* bytes that say where contents are */
#define READ_NAMES_MAX ((uint64_t)2 << 30)   /* bytes of all paths */
#define READ_XATTRS_MAX ((uint64_t)1 << 30)  /* bytes of all xattrs */
#define READ_CHUNK ((size_t)128 << 10)       /* on a thread's stack */

/* An outline is held against another one: both are in memory at once, and one of them may be a guest's joke. */
#define OUTLINE_ENTRIES_MAX 1000000
#define OUTLINE_NAMES_MAX ((uint64_t)256 << 20)
#define OUTLINE_XATTRS_MAX ((uint64_t)64 << 20)
#define OUTLINE_PLACES_MAX ((size_t)128 << 20)

/* A content on its way to be hashed. */
typedef struct HashJob {
    TreeEntry *entry; /* the tree's */
    uint64_t place;
    GArray *runs; /* of Ext4Run */
    bool keyed;
    Digest key;
    Digest content;
    bool padded; /* zeroes follow the end of the file in its last block */
} HashJob;

typedef struct Ext4Reader {
    StoreMap *disk;
    uint64_t offset, size; /* of the file system on @disk */
    Ext4Info info;
    Tree *tree;
    GPtrArray *folders;    /* paths by the reader's numbers */
    GHashTable *names;     /* inode with several names -> path of the first one told */
    GByteArray *places;    /* where contents are: a place for each file that has one */
    uint64_t words, name_bytes, xattr_bytes;
    uint64_t content_left; /* apparent bytes that may still be hashed */
    uint64_t entries_max, names_max, xattrs_max;
    size_t places_max;
    bool outline;          /* keys stand for contents, which are not read */
    Ordered *ring;
    HashJob *jobs;
    unsigned job_count;
    MapWriter *space;
    TreeKnown *known; /* may be NULL */
    const char *at;   /* folder being told */
    /* What was told of the entry that comes next. */
    GArray *runs;     /* of Ext4Run */
    GByteArray *inlined;
    GPtrArray *xattrs;
} Reader;

static bool damaged(GError **error, const char *path, const char *what)
{
    return fail(error, "the ext4 file system is damaged: %s at '/%s'", what, path);
}

/*
 * --- places ---
 *
 *   | u8 flags | varint runs | { varint hole before, varint physical, varint count }* |
 *   | u8 PLACE_INLINE | varint bytes | bytes |
 *
 * A place's number is its start + 1; 0 is that of an empty file.
 */
enum { PLACE_INLINE = 1, PLACE_PADDED = 2 };

static bool place_put(Reader *r, const GArray *runs, uint64_t *ret, GError **error)
{
    uint8_t flags = 0;
    uint64_t end = 0;

    if (r->places->len > r->places_max || runs->len > (r->places_max - r->places->len) / 30)
        return fail(error, "the ext4 file system's files lie in more pieces than kiln reads");
    *ret = (uint64_t)r->places->len + 1;
    g_byte_array_append(r->places, &flags, 1);
    append_varint(r->places, runs->len);
    for (guint i = 0; i < runs->len; i++) {
        const Ext4Run *run = &g_array_index(runs, Ext4Run, i);

        append_varint(r->places, run->logical - end);
        append_varint(r->places, run->physical);
        append_varint(r->places, run->count);
        end = run->logical + run->count;
    }
    return true;
}

static bool place_put_inline(Reader *r, const GByteArray *bytes, uint64_t *ret, GError **error)
{
    uint8_t flags = PLACE_INLINE | PLACE_PADDED;

    if (r->places->len > r->places_max || bytes->len > r->places_max - r->places->len)
        return fail(error, "the ext4 file system has more small files inside of inodes than kiln reads");
    *ret = (uint64_t)r->places->len + 1;
    g_byte_array_append(r->places, &flags, 1);
    append_varint(r->places, bytes->len);
    g_byte_array_append(r->places, bytes->data, bytes->len);
    return true;
}

static uint8_t place_flags(const Reader *r, uint64_t place)
{
    return r->places->data[place - 1];
}

static void place_set_padded(Reader *r, uint64_t place)
{
    r->places->data[place - 1] |= PLACE_PADDED;
}

/* Our own bytes: they are whole. */
static void place_get(const Reader *r, uint64_t place, GArray *runs)
{
    const uint8_t *p = r->places->data + place, *stop = r->places->data + r->places->len;
    uint64_t count = 0, hole = 0, end = 0;

    g_array_set_size(runs, 0);
    (void)read_varint(&p, stop, &count);
    for (uint64_t i = 0; i < count; i++) {
        Ext4Run run = {0, 0, 0};

        (void)read_varint(&p, stop, &hole);
        (void)read_varint(&p, stop, &run.physical);
        (void)read_varint(&p, stop, &run.count);
        run.logical = end + hole;
        end = run.logical + run.count;
        g_array_append_val(runs, run);
    }
}

static const uint8_t *place_get_inline(const Reader *r, uint64_t place)
{
    const uint8_t *p = r->places->data + place;
    uint64_t size;

    (void)read_varint(&p, r->places->data + r->places->len, &size);
    return p;
}

/* --- contents --- */

typedef bool ContentFn(const Reader *r, const uint8_t *data, size_t size, void *arg, GError **error);

static bool send_zeroes(const Reader *r, uint8_t *chunk, uint64_t size, ContentFn *fn, void *arg, GError **error)
{
    if (size)
        memset(chunk, 0, MIN(size, READ_CHUNK));
    while (size) {
        size_t part = MIN(size, READ_CHUNK);

        if (!fn(r, chunk, part, arg, error) || !interrupt_check(error))
            return false;
        size -= part;
    }
    return true;
}

/* Streams the bytes of a file of @size that lies in @runs. Any thread. */
static bool send_runs(const Reader *r, const GArray *runs, uint64_t size, ContentFn *fn, void *arg, GError **error)
{
    uint64_t block = r->info.block_size, done = 0;
    uint8_t chunk[READ_CHUNK];

    for (guint i = 0; i < runs->len; i++) {
        const Ext4Run *run = &g_array_index(runs, Ext4Run, i);
        uint64_t from = r->offset + run->physical * block, end = MIN((run->logical + run->count) * block, size);

        if (!send_zeroes(r, chunk, run->logical * block - done, fn, arg, error))
            return false;
        for (done = run->logical * block; done < end;) {
            size_t part = MIN(READ_CHUNK, end - done);

            if (!store_map_pread(r->disk, chunk, part, from, error) || !fn(r, chunk, part, arg, error))
                return false;
            done += part;
            from += part;
        }
        if (!interrupt_check(error))
            return false;
    }
    return send_zeroes(r, chunk, size - done, fn, arg, error);
}

static bool send_place(Reader *r, uint64_t place, uint64_t size, ContentFn *fn, void *arg, GError **error)
{
    g_autoptr(GArray) runs = NULL;

    if (size == 0)
        return true;
    if (place_flags(r, place) & PLACE_INLINE)
        return fn(r, place_get_inline(r, place), size, arg, error);
    runs = g_array_new(FALSE, FALSE, sizeof(Ext4Run));
    place_get(r, place, runs);
    return send_runs(r, runs, size, fn, arg, error);
}

static bool content_hash(const Reader *r, const uint8_t *data, size_t size, void *arg, GError **error)
{
    (void)r, (void)error;
    digest_stream_update(arg, data, size);
    return true;
}

/* --- inodes --- */

/* Only whole blocks on the store's grid have hashes. */
static bool has_key(const Reader *r, const Ext4Entry *told)
{
    return r->known && told->size > 0 && !told->is_inline && r->info.block_size == STORE_BLOCK_SIZE && r->offset % STORE_BLOCK_SIZE == 0;
}

static bool content_key(const Reader *r, const GArray *runs, uint64_t size, Digest *ret, GError **error)
{
    g_autoptr(DigestStream) key = tree_known_key_begin(size);

    for (guint i = 0; i < runs->len; i++) {
        const Ext4Run *run = &g_array_index(runs, Ext4Run, i);

        if (!tree_known_key_add(r->known, key, run->logical, r->disk, r->offset / STORE_BLOCK_SIZE + run->physical, run->count, error))
            return false;
    }
    digest_stream_final(key, ret);
    return true;
}

/* The block that was read last, so it is at hand. One that is a hole has nothing behind the end either. */
static bool see_padding(const Reader *r, HashJob *job, GError **error)
{
    uint64_t size = job->entry->size, last = size / STORE_BLOCK_SIZE;
    size_t used = (size_t)(size % STORE_BLOCK_SIZE);
    const Ext4Run *run = job->runs->len ? &g_array_index(job->runs, Ext4Run, job->runs->len - 1) : NULL;
    uint8_t rest[STORE_BLOCK_SIZE];

    job->padded = true;
    if (!used || r->info.block_size != STORE_BLOCK_SIZE || !run || last < run->logical || last >= run->logical + run->count)
        return true;
    if (!store_map_pread(r->disk, rest, STORE_BLOCK_SIZE - used, r->offset + (run->physical + last - run->logical) * STORE_BLOCK_SIZE + used,
                         error))
        return false;
    job->padded = bytes_are_zero(rest, STORE_BLOCK_SIZE - used);
    return true;
}

static bool job_hash(void *slot, void *arg, GError **error)
{
    const Reader *r = arg;
    HashJob *job = slot;
    g_autoptr(DigestStream) digest = digest_stream_new();

    if (!send_runs(r, job->runs, job->entry->size, content_hash, digest, error) || !see_padding(r, job, error))
        return fail_prefix(error, "'/%s'", job->entry->path);
    digest_stream_final(digest, &job->content);
    return true;
}

static bool job_done(void *slot, void *arg, GError **error)
{
    Reader *r = arg;
    HashJob *job = slot;

    job->entry->sha256 = job->content;
    if (job->keyed)
        tree_known_put(r->known, &job->key, &job->content, job->padded);
    if (job->padded)
        place_set_padded(r, job->place);
    return true;
}

static void start_ring(Reader *r)
{
    static const OrderedOps ops = {NULL, job_hash, job_done};

    r->job_count = 64 * ordered_threads();
    r->jobs = g_new0(HashJob, r->job_count);
    for (unsigned i = 0; i < r->job_count; i++) {
        r->jobs[i].runs = g_array_new(FALSE, FALSE, sizeof(Ext4Run));
    }
    r->ring = ordered_new(&ops, r->jobs, sizeof *r->jobs, r->job_count, r);
}

/* Also in the middle of the work, before an entry goes that is being hashed. */
static void end_ring(Reader *r)
{
    g_clear_pointer(&r->ring, ordered_free);
    for (unsigned i = 0; i < r->job_count; i++) {
        g_array_unref(r->jobs[i].runs);
    }
    r->job_count = 0;
    g_clear_pointer(&r->jobs, g_free);
}

static bool hash_later(Reader *r, TreeEntry *entry, const GArray *runs, const Digest *key, GError **error)
{
    HashJob *job;
    void *slot;

    if (!r->ring)
        start_ring(r);
    if (!ordered_slot(r->ring, &slot, error))
        return false;
    job = slot;
    job->entry = entry;
    job->place = entry->data_offset;
    g_array_set_size(job->runs, 0);
    g_array_append_vals(job->runs, runs->data, runs->len);
    job->keyed = key != NULL;
    job->key = key ? *key : digest_none;
    ordered_push(r->ring);
    return true;
}

static bool hash_now(Reader *r, TreeEntry *entry, GError **error)
{
    g_autoptr(DigestStream) digest = digest_stream_new();

    if (!send_place(r, entry->data_offset, entry->size, content_hash, digest, error))
        return fail_prefix(error, "'/%s'", entry->path);
    digest_stream_final(digest, &entry->sha256);
    return true;
}

static bool get_content(Reader *r, const Ext4Entry *told, TreeEntry *entry, GError **error)
{
    bool keyed = has_key(r, told), padded = false;
    const Digest *content;
    Digest key;

    if (entry->size == 0 || told->is_inline)
        return (entry->size == 0 || place_put_inline(r, r->inlined, &entry->data_offset, error)) && hash_now(r, entry, error);
    if (!place_put(r, r->runs, &entry->data_offset, error) || (keyed && !content_key(r, r->runs, entry->size, &key, error)))
        return fail_prefix(error, "'/%s'", entry->path);
    if (keyed && r->outline) {
        entry->sha256 = key;
        return true;
    }
    content = keyed ? tree_known_find(r->known, &key, &padded) : NULL;
    if (!content)
        return hash_later(r, entry, r->runs, keyed ? &key : NULL, error);
    entry->sha256 = *content;
    if (padded)
        place_set_padded(r, entry->data_offset);
    return true;
}

/* Holes cost nothing in an outline: a file of any size may be one. */
static bool may_read(Reader *r, const Ext4Entry *told)
{
    if (r->outline && has_key(r, told))
        return true;
    if (told->size > TREE_FILE_MAX || told->size > r->content_left)
        return false;
    r->content_left -= told->size;
    return true;
}

/* The last run told may reach to the end of the file's last block and no further. */
static bool check_content(const Reader *r, const Ext4Entry *told, const char *path, GError **error)
{
    const Ext4Run *last = r->runs->len ? &g_array_index(r->runs, Ext4Run, r->runs->len - 1) : NULL;
    uint64_t blocks = told->size / r->info.block_size + (told->size % r->info.block_size != 0);

    if (told->is_inline ? r->inlined->len != told->size || last : r->inlined->len != 0 || (last && last->logical + last->count > blocks))
        return damaged(error, path, "a content of impossible length");
    return true;
}

static bool get_file(Reader *r, const Ext4Entry *told, TreeEntry *entry, GError **error)
{
    entry->size = told->size;
    entry->data_offset = 0;
    if (!may_read(r, told))
        return fail(error, "the file '/%s' claims more bytes than a disk of this size should hold", entry->path);
    return check_content(r, told, entry->path, error) && get_content(r, told, entry, error);
}

static char mode_type(uint16_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return 'f';
    case S_IFDIR:
        return 'd';
    case S_IFLNK:
        return 'l';
    case S_IFBLK:
        return 'b';
    case S_IFCHR:
        return 'c';
    case S_IFIFO:
        return 'p';
    case S_IFSOCK:
        return 's';
    default:
        return 0;
    }
}

static bool get_typed(Reader *r, const Ext4Entry *told, const Ext4Said *target, TreeEntry *entry, GError **error)
{
    if (entry->type == 'f')
        return get_file(r, told, entry, error);
    if (entry->type == 'b' || entry->type == 'c') {
        entry->major = told->major;
        entry->minor = told->minor;
    }
    if (entry->type != 'l')
        return true;
    if (target->size == 0 || target->size > EXT4_PATH_MAX || memchr(target->data, '\0', target->size))
        return damaged(error, entry->path, "an impossible symbolic link");
    entry->target = g_strndup((const char *)target->data, target->size);
    return true;
}

/* --- what the reader tells --- */

static bool is_name(const uint8_t *name, size_t size)
{
    return size > 0 && size <= 255 && !memchr(name, '\0', size) && !memchr(name, '/', size) && !(size == 1 && name[0] == '.') &&
           !(size == 2 && name[0] == '.' && name[1] == '.');
}

/* The path of a name in the folder being told; the first of all is the root. */
static bool take_path(Reader *r, const uint8_t *name, size_t size, char **ret, GError **error)
{
    g_autofree char *base = g_strndup((const char *)name, size);
    g_autofree char *path = r->at && *r->at ? g_strconcat(r->at, "/", base, NULL) : g_strdup(base);

    if (r->at ? !is_name(name, size) : size != 0)
        return damaged(error, r->at ? r->at : "", "an impossible name");
    r->name_bytes += strlen(path);
    if (strlen(path) > EXT4_PATH_MAX || r->name_bytes > r->names_max || tree_count(r->tree) >= r->entries_max)
        return fail(error, "the ext4 file system has more or deeper folders than kiln reads, at '/%.100s...'", r->at ? r->at : "");
    if (tree_find(r->tree, path))
        return damaged(error, path, "two equal names");
    *ret = g_steal_pointer(&path);
    return true;
}

static bool take_folder(Reader *r, Ext4Session *s, Ext4Said *said, GError **error)
{
    uint32_t number;

    if (!ext4_session_take(s, said, &number, sizeof number, error))
        return false;
    if (number >= r->folders->len)
        return ext4_session_nonsense(s, error);
    r->at = r->folders->pdata[number];
    return true;
}

/* A further name of an inode that was told already. */
static bool take_link(Reader *r, Ext4Session *s, Ext4Said *said, GError **error)
{
    g_autofree char *path = NULL;
    const char *first;
    TreeEntry *entry;
    uint32_t ino;

    if (!ext4_session_take(s, said, &ino, sizeof ino, error))
        return false;
    first = r->at ? g_hash_table_lookup(r->names, GUINT_TO_POINTER(ino)) : NULL;
    if (!first)
        return ext4_session_nonsense(s, error);
    if (!take_path(r, said->data, said->size, &path, error))
        return false;
    entry = tree_entry_new(path, 'h');
    entry->target = g_strdup(first);
    tree_put(r->tree, entry);
    return true;
}

static bool take_runs(Reader *r, Ext4Session *s, Ext4Said *said, GError **error)
{
    const Ext4Run *last = r->runs->len ? &g_array_index(r->runs, Ext4Run, r->runs->len - 1) : NULL;
    uint64_t end = last ? last->logical + last->count : 0;
    Ext4Run run;

    while (said->size) {
        if (!ext4_session_take(s, said, &run, sizeof run, error))
            return false;
        if (run.logical < end || run.logical > TREE_FILE_MAX || run.count == 0 || run.physical < r->info.first_block ||
            run.physical >= r->info.blocks || run.count > r->info.blocks - run.physical)
            return ext4_session_nonsense(s, error);
        if (r->runs->len >= r->places_max / 30)
            return fail(error, "the ext4 file system's files lie in more pieces than kiln reads");
        g_array_append_val(r->runs, run);
        end = run.logical + run.count;
    }
    return true;
}

static bool take_inline(Reader *r, Ext4Session *s, const Ext4Said *said, GError **error)
{
    if (r->inlined->len || said->size > 65536)
        return ext4_session_nonsense(s, error);
    g_byte_array_append(r->inlined, said->data, (guint)said->size);
    return true;
}

static void xattr_free(void *p)
{
    TreeXattr *xattr = p;

    g_free(xattr->name);
    g_bytes_unref(xattr->value);
    g_free(xattr);
}

static bool take_xattr(Reader *r, Ext4Session *s, const Ext4Said *said, GError **error)
{
    const uint8_t *stop = memchr(said->data, '\0', said->size);
    TreeXattr *xattr;

    if (!stop || stop == said->data)
        return ext4_session_nonsense(s, error);
    r->xattr_bytes += said->size;
    if (r->xattr_bytes > r->xattrs_max)
        return fail(error, "the ext4 file system has more extended attributes than kiln reads");
    xattr = g_new0(TreeXattr, 1);
    xattr->name = g_strdup((const char *)said->data);
    xattr->value = g_bytes_new(stop + 1, (gsize)(said->data + said->size - stop - 1));
    g_ptr_array_add(r->xattrs, xattr);
    return true;
}

static bool set_xattrs(Reader *r, TreeEntry *entry, GError **error)
{
    for (guint i = 0; i < r->xattrs->len; i++) {
        const TreeXattr *xattr = r->xattrs->pdata[i];
        g_autoptr(GByteArray) acl = NULL;
        gsize size;
        const void *value = g_bytes_get_data(xattr->value, &size);

        if (!tree_acl_is_name(xattr->name)) {
            tree_entry_set_xattr(entry, xattr->name, value, size);
            continue;
        }
        acl = tree_acl_from_ext4(value, size);
        if (!acl)
            return damaged(error, entry->path, "an impossible access control list");
        tree_entry_set_xattr(entry, xattr->name, acl->data, acl->len);
    }
    return true;
}

static TreeEntry *entry_of(const Ext4Entry *told, const char *path)
{
    TreeEntry *entry = tree_entry_new(path, mode_type(told->mode));

    entry->mode = told->mode & 07777;
    entry->uid = told->uid;
    entry->gid = told->gid;
    entry->mtime = told->mtime;
    return entry;
}

static void forget_told(Reader *r)
{
    g_array_set_size(r->runs, 0);
    g_byte_array_set_size(r->inlined, 0);
    g_ptr_array_set_size(r->xattrs, 0);
}

static bool add_entry(Reader *r, const Ext4Entry *told, const Ext4Said *target, const char *path, GError **error)
{
    TreeEntry *entry = entry_of(told, path);

    if (!get_typed(r, told, target, entry, error) || !set_xattrs(r, entry, error)) {
        end_ring(r);
        tree_entry_free(entry);
        return false;
    }
    if (entry->type != 'd' && told->links > 1)
        g_hash_table_insert(r->names, GUINT_TO_POINTER(told->ino), g_strdup(path));
    if (entry->type == 'd')
        g_ptr_array_add(r->folders, g_strdup(path));
    tree_put(r->tree, entry);
    return true;
}

static bool take_entry(Reader *r, Ext4Session *s, Ext4Said *said, GError **error)
{
    g_autofree char *path = NULL;
    Ext4Said target;
    Ext4Entry told;

    if (!ext4_session_take(s, said, &told, sizeof told, error))
        return false;
    if (said->size != (size_t)told.name_size + told.target_size || mode_type(told.mode) == 0 || (!r->at && !S_ISDIR(told.mode)) ||
        (!r->at && r->folders->len))
        return ext4_session_nonsense(s, error);
    target = (Ext4Said){said->word, said->data + told.name_size, told.target_size};
    if (!take_path(r, said->data, told.name_size, &path, error) || !add_entry(r, &told, &target, path, error))
        return false;
    forget_told(r);
    return true;
}

static bool take_word(Ext4Session *s, Ext4Said *said, void *arg, GError **error)
{
    Reader *r = arg;

    if (++r->words > READ_WORDS_MAX)
        return fail(error, "the ext4 file system is damaged: its structures never end");
    if (r->words % 4096 == 0 && !interrupt_check(error))
        return false;
    switch (said->word) {
    case EXT4_FOLDER:
        return take_folder(r, s, said, error);
    case EXT4_RUNS:
        return take_runs(r, s, said, error);
    case EXT4_INLINE:
        return take_inline(r, s, said, error);
    case EXT4_XATTR:
        return take_xattr(r, s, said, error);
    case EXT4_LINK:
        return take_link(r, s, said, error);
    case EXT4_ENTRY:
        return take_entry(r, s, said, error);
    default:
        return ext4_session_nonsense(s, error);
    }
}

static bool walk(Reader *r, Ext4Session *s, GError **error)
{
    if (!ext4_session_each(s, EXT4_WALK, NULL, take_word, r, error))
        return false;
    if (r->folders->len == 0)
        return ext4_session_nonsense(s, error);
    if (r->ring && !ordered_drain(r->ring, error))
        return false;
    end_ring(r);
    return true;
}

/* --- the file space --- */

typedef struct SpaceWrite {
    uint64_t at;          /* in the space */
    size_t held;          /* bytes that do not fill a block yet */
    uint8_t block[STORE_BLOCK_SIZE];
} SpaceWrite;

/* Copies content that does not lie on the grid: whole blocks at once, the rest waits. */
static bool content_copy(const Reader *r, const uint8_t *data, size_t size, void *arg, GError **error)
{
    SpaceWrite *w = arg;

    while (size) {
        size_t whole = size & ~(size_t)(STORE_BLOCK_SIZE - 1), part;

        if (w->held == 0 && whole) {
            if (!map_writer_write(r->space, w->at, data, whole, error))
                return false;
            w->at += whole;
            data += whole;
            size -= whole;
            continue;
        }
        part = MIN(size, STORE_BLOCK_SIZE - w->held);
        memcpy(w->block + w->held, data, part);
        w->held += part;
        data += part;
        size -= part;
        if (w->held == STORE_BLOCK_SIZE) {
            if (!map_writer_write(r->space, w->at, w->block, STORE_BLOCK_SIZE, error))
                return false;
            w->at += STORE_BLOCK_SIZE;
            w->held = 0;
        }
    }
    return true;
}

static bool space_copy(Reader *r, const TreeSpaceFile *file, GError **error)
{
    SpaceWrite w = {.at = file->to};

    if (!send_place(r, file->from, file->size, content_copy, &w, error))
        return false;
    if (w.held == 0)
        return true;
    memset(w.block + w.held, 0, STORE_BLOCK_SIZE - w.held);
    return map_writer_write(r->space, w.at, w.block, STORE_BLOCK_SIZE, error);
}

/* The last block when the file ends inside it: as it is if zeroes follow, else a copy with zeroes. */
static bool space_take_tail(Reader *r, uint64_t from, uint64_t to, size_t used, GError **error)
{
    uint8_t block[STORE_BLOCK_SIZE];

    if (!store_map_pread(r->disk, block, sizeof block, from, error))
        return false;
    if (bytes_are_zero(block + used, sizeof block - used))
        return map_writer_ref(r->space, to, r->disk, from, sizeof block, error);
    memset(block + used, 0, sizeof block - used);
    return map_writer_write(r->space, to, block, sizeof block, error);
}

static bool space_take_runs(Reader *r, const GArray *runs, const TreeSpaceFile *file, GError **error)
{
    bool padded = place_flags(r, file->from) & PLACE_PADDED;

    for (guint i = 0; i < runs->len; i++) {
        const Ext4Run *run = &g_array_index(runs, Ext4Run, i);
        uint64_t logical = run->logical * STORE_BLOCK_SIZE, len = run->count * STORE_BLOCK_SIZE;
        uint64_t from = r->offset + run->physical * STORE_BLOCK_SIZE, to = file->to + logical;
        uint64_t whole = padded ? len : MIN(len, (file->size - logical) & ~(uint64_t)(STORE_BLOCK_SIZE - 1));

        if (whole && !map_writer_ref(r->space, to, r->disk, from, whole, error))
            return false;
        if (whole < len && !space_take_tail(r, from + whole, to + whole, file->size % STORE_BLOCK_SIZE, error))
            return false;
    }
    return true;
}

static bool space_take_file(Reader *r, const TreeSpaceFile *file, GError **error)
{
    g_autoptr(GArray) runs = NULL;

    if (file->size == 0)
        return true;
    if (r->info.block_size != STORE_BLOCK_SIZE || r->offset % STORE_BLOCK_SIZE || (place_flags(r, file->from) & PLACE_INLINE))
        return space_copy(r, file, error);
    runs = g_array_new(FALSE, FALSE, sizeof(Ext4Run));
    place_get(r, file->from, runs);
    return space_take_runs(r, runs, file, error);
}

static bool space_take_all(Reader *r, StoreWriter *writer, GError **error)
{
    g_autoptr(GArray) layout = NULL;

    if (!tree_space_lay_out(r->tree, &layout, error) ||
        !map_writer_new(writer, tree_space_size(layout), NULL, &r->space, error))
        return false;
    for (guint i = 0; i < layout->len; i++) {
        const TreeSpaceFile *file = &g_array_index(layout, TreeSpaceFile, i);

        if (!space_take_file(r, file, error))
            return fail_prefix(error, "keep the content of '/%s'", file->entry->path);
    }
    return map_writer_finish(r->space, error);
}

static void reader_init(Reader *r)
{
    r->tree = tree_new();
    r->folders = g_ptr_array_new_with_free_func(g_free);
    r->names = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    r->places = g_byte_array_new();
    r->runs = g_array_new(FALSE, FALSE, sizeof(Ext4Run));
    r->inlined = g_byte_array_new();
    r->xattrs = g_ptr_array_new_with_free_func(xattr_free);
    /* Sparse files may claim more than the disk has (lastlog does), but not without end. */
    r->content_left = 16 * r->size + ((uint64_t)64 << 30);
    r->entries_max = READ_ENTRIES_MAX;
    r->names_max = READ_NAMES_MAX;
    r->xattrs_max = READ_XATTRS_MAX;
    r->places_max = READ_PLACES_MAX;
}

/* The reader is gone when the tree is there: contents are read without it. */
static bool read_folders(Reader *r, GError **error)
{
    g_autoptr(Ext4Session) session = NULL;
    bool ok = ext4_session_open(r->disk, r->offset, r->size, false, &session, &r->info, error) && walk(r, session, error);

    if (ok)
        tree_normalise_links(r->tree);
    return ok && tree_check(r->tree, error);
}

static void reader_clear(Reader *r)
{
    end_ring(r);
    g_ptr_array_unref(r->folders);
    g_hash_table_unref(r->names);
    g_byte_array_unref(r->places);
    g_array_unref(r->runs);
    g_byte_array_unref(r->inlined);
    g_ptr_array_unref(r->xattrs);
    tree_free(r->tree);
    map_writer_free(r->space);
}

bool tree_read_ext4(Store *store, StoreMap *disk, uint64_t offset, uint64_t size, StoreWriter *writer, TreeKnown *known,
                    Tree **ret_tree, MapWriter **ret_space, GError **error)
{
    Reader r = {.disk = disk, .offset = offset, .size = size, .known = known};
    bool ok;

    (void)store;
    reader_init(&r);
    ok = read_folders(&r, error) && (writer ? space_take_all(&r, writer, error) : tree_space_lay_out(r.tree, NULL, error));
    if (ok) {
        *ret_tree = g_steal_pointer(&r.tree);
        if (writer)
            *ret_space = g_steal_pointer(&r.space);
    }
    reader_clear(&r);
    return ok;
}

/* --- outlines --- */

bool ext4_outline(StoreMap *disk, uint64_t offset, uint64_t size, Ext4Reader **ret, GError **error)
{
    g_autoptr(Ext4Reader) r = g_new0(Reader, 1);

    r->disk = store_map_ref(disk);
    r->offset = offset;
    r->size = size;
    r->outline = true;
    r->known = tree_known_new(); /* stays empty: it makes the keys */
    reader_init(r);
    r->entries_max = OUTLINE_ENTRIES_MAX;
    r->names_max = OUTLINE_NAMES_MAX;
    r->xattrs_max = OUTLINE_XATTRS_MAX;
    r->places_max = OUTLINE_PLACES_MAX;
    if (!read_folders(r, error))
        return false;
    *ret = g_steal_pointer(&r);
    return true;
}

Tree *ext4_outline_tree(Ext4Reader *r)
{
    return r->tree;
}

bool ext4_outline_content(Ext4Reader *r, const TreeEntry *entry, Digest *ret, GError **error)
{
    g_autoptr(DigestStream) digest = digest_stream_new();

    if (entry->size > r->content_left)
        return fail(error, "'/%s' and what was read before it is more than a disk of this size should hold", entry->path);
    r->content_left -= entry->size;
    if (!send_place(r, entry->data_offset, entry->size, content_hash, digest, error))
        return fail_prefix(error, "'/%s'", entry->path);
    digest_stream_final(digest, ret);
    return true;
}

void ext4_outline_free(Ext4Reader *r)
{
    if (!r)
        return;
    reader_clear(r);
    tree_known_free(r->known);
    store_map_unref(r->disk);
    g_free(r);
}
