/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repairs, one damaged file after the other.
 *
 *   look for      first, once for all: where in this store and the other one are blocks with the hashes of those that are lost? Every frame's head is
 *                 read for that, and a block that is found is read and verified before it counts.
 *   stage         the new file in tmp/, verified and synced
 *   keep          the damaged file gets a second name in damaged/
 *   take over     under the catalog's write lock, because names come and go only there: rename, sync of the folder, rows
 *
 * When blocks move to a new segment, it gets its name and rows in a first transaction, then come tables, then the damaged file loses its name: as
 * in repack.c, whose lock is held, so that no two write tables of one name.
 */
#include "store/repair.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/scope.h"
#include "store/arrival.h"
#include "store/blob.h"
#include "store/bytes.h"
#include "store/io.h"
#include "store/ledger.h"
#include "store/recovery.h"
#include "store/repair-image.h"
#include "store/segment-moved.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <sys/file.h>

#define FOLDER "damaged"
#define PIECE (512u << 10)
#define BLOB_MAX (1u << 30)

typedef struct Repair {
    Store *store, *from;
    Database *db;
    Compressor *compressor;
    GHashTable *wanted; /* Place* by its hash */
    GPtrArray *repairs;
} Repair;

/* A lost block, and where it was found; segment NULL: nowhere. */
typedef struct Place {
    Digest hash;
    Segment *segment;
    uint32_t position;
} Place;

static bool not_repaired(Damage *d, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool not_repaired(Damage *d, const char *format, ...)
{
    g_autofree char *why = NULL;
    va_list args;

    va_start(args, format);
    why = g_strdup_vprintf(format, args);
    va_end(args);
    g_ptr_array_add(d->sentences, g_strdup_printf("%s was not repaired: %s", d->file, why));
    return true;
}

static bool repaired(Repair *r, Damage *d, const char *format, ...) G_GNUC_PRINTF(3, 4);
static bool repaired(Repair *r, Damage *d, const char *format, ...)
{
    g_autofree char *how = NULL;
    va_list args;

    va_start(args, format);
    how = g_strdup_vprintf(format, args);
    va_end(args);
    g_ptr_array_add(r->repairs, g_strdup_printf("%s %s", d->file, how));
    d->repaired = true;
    return true;
}

static bool in_transaction(Repair *r, bool (*step)(Repair *, void *, GError **), void *arg, GError **error)
{
    if (!database_begin(r->db, true, error))
        return false;
    if (!step(r, arg, error)) {
        database_rollback(r->db);
        return false;
    }
    return database_commit(r->db, error);
}

/* --- keeping what is damaged --- */

static int open_folder(Store *store)
{
    if (io_mkdir(store->dirfd, FOLDER, 0755) < 0 && errno != EEXIST)
        return -1;
    if (io_fsync(store->dirfd) < 0)
        return -1;
    return io_open(store->dirfd, FOLDER, O_RDONLY | O_DIRECTORY, 0);
}

/* Gives the file a second name in damaged/. One that is not there is kept already. */
static bool keep_damaged(Store *store, int dir, const char *name, GError **error)
{
    auto_fd int folder = -1;

    if (dir < 0 || faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return true;
    folder = open_folder(store);
    for (int i = 1; folder >= 0 && i < 10000; i++) {
        g_autofree char *kept = g_strdup_printf("%s.%d", name, i);

        if (io_link(dir, name, folder, kept) == 0)
            return io_fsync(folder) == 0 || store_fail_errno(store, error, "sync");
        if (errno != EEXIST)
            break;
    }
    return store_fail_errno(store, error, "keep a damaged file of");
}

/* --- where lost blocks are --- */

static bool want_blocks_of(Repair *r, const Digest *digest, GError **error)
{
    g_autofree SalvagedFrame *frame = g_new(SalvagedFrame, 1);
    g_autoptr(Salvage) s = NULL;

    if (!salvage_open(r->store, digest, &s, error))
        return false;
    for (uint32_t i = 0; s->fd >= 0 && i < s->entries->len; i++) {
        salvage_frame(s, i, frame);
        for (unsigned j = 0; j < frame->blocks; j++)
            if (!(frame->good & 1u << j)) {
                Place *place = g_new0(Place, 1);

                place->hash = frame->hashes[j];
                g_hash_table_replace(r->wanted, &place->hash, place);
            }
    }
    return true;
}

static bool read_block(Segment *segment, uint32_t position, const Digest *hash, uint8_t *to)
{
    Digest have;

    if (!segment_read(segment, position_frame(position), position_block(position) * STORE_BLOCK_SIZE, STORE_BLOCK_SIZE, to, NULL))
        return false;
    digest_of(to, STORE_BLOCK_SIZE, &have);
    return !hash || digest_equal(&have, hash);
}

static void look_in_segment(Repair *r, Segment *segment)
{
    uint8_t block[STORE_BLOCK_SIZE];
    Digest hashes[FRAME_MAX_BLOCKS];
    unsigned blocks;

    for (uint32_t i = 0; !segment_is_moved(segment) && i < segment_frames(segment); i++) {
        if (!segment_hashes(segment, i, hashes, &blocks, NULL))
            continue;
        for (unsigned j = 0; j < blocks; j++) {
            Place *place = g_hash_table_lookup(r->wanted, &hashes[j]);

            if (!place || place->segment || !read_block(segment, position_of(i, j), &hashes[j], block))
                continue;
            place->segment = segment;
            place->position = position_of(i, j);
        }
    }
}

static bool look_in_store(Repair *r, Store *store, GError **error)
{
    g_autoptr(GArray) digests = NULL;
    Database *db;

    if (!store_catalog(store, &db, error) || !catalog_digests(db, &digests, error, "SELECT digest FROM segment ORDER BY number", NULL))
        return false;
    for (guint i = 0; i < digests->len; i++) {
        Segment *segment;

        if (!interrupt_check(error))
            return false;
        if (segment_get(store, &g_array_index(digests, Digest, i), &segment, NULL))
            look_in_segment(r, segment);
    }
    return true;
}

static bool find_lost_blocks(Repair *r, DamageList *damage, GError **error)
{
    for (guint i = 0; i < damage_count(damage); i++) {
        const Damage *d = damage_nth(damage, i);

        if (d->kind == DAMAGE_SEGMENT && !want_blocks_of(r, &d->digest, error))
            return false;
    }
    return g_hash_table_size(r->wanted) == 0 || (look_in_store(r, r->store, error) && (!r->from || look_in_store(r, r->from, error)));
}

/* --- a segment, put together --- */

typedef struct Rebuild {
    Repair *r;
    Damage *d;
    Salvage *own;
    Segment *other;          /* of the same name in the other store; NULL: it has none */
    ImageBlocks *images;     /* NULL: no use, or no other store */
    SegmentMoved *gaps;      /* of a table that lacks blocks: what it has; and the segment that it stands for */
    Segment *self;
    uint32_t frames;
    uint64_t good, found, lost; /* blocks: of the damaged file, from elsewhere, nowhere */
    SalvagedFrame *frame;    /* the one at hand, completed */
    uint8_t *encoded;
    SegmentFile *file;       /* being written */
    SegmentMoved *moved;     /* where blocks went: into the new segment, all of them */
} Rebuild;

static void rebuild_clear(Rebuild *b)
{
    salvage_free(b->own);
    image_blocks_free(b->images);
    segment_moved_free(b->gaps);
    g_free(b->frame);
    g_free(b->encoded);
    segment_file_free(b->file);
    segment_moved_free(b->moved);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Rebuild, rebuild_clear)

static bool rebuild_init(Rebuild *b, Repair *r, Damage *d, GError **error)
{
    *b = (Rebuild){.r = r, .d = d};
    if (!salvage_open(r->store, &d->digest, &b->own, error))
        return false;
    if (r->from) {
        segment_forget(r->from, &d->digest);
        if (!segment_get(r->from, &d->digest, &b->other, NULL))
            b->other = NULL;
    }
    if (d->kind == DAMAGE_TABLE && segment_moved_load(r->store, &d->digest, &b->gaps, NULL) && b->gaps &&
        !segment_get(r->store, &d->digest, &b->self, NULL))
        b->self = NULL;
    if (r->from && !b->other && !b->own->opens && !image_blocks_open(r->store, r->from, &d->digest, &b->images, error))
        return false;
    b->frame = g_new(SalvagedFrame, 1);
    b->encoded = g_malloc(FRAME_MAX_STORED);
    b->frames = MAX(b->own->entries->len, b->other ? segment_frames(b->other) : 0);
    if (b->images)
        b->frames = MAX(b->frames, (image_blocks_end(b->images) + FRAME_MAX_BLOCKS - 1) / FRAME_MAX_BLOCKS);
    if (b->gaps)
        b->frames = MAX(b->frames, b->gaps->frames);
    if (b->own->entries->len == 0 && b->gaps)
        b->own->class = b->gaps->body->class;
    else if (b->own->entries->len == 0)
        b->own->class = b->other ? segment_class(b->other) : BLOCK_PUBLIC; /* images need nothing else */
    return true;
}

static bool find_block(Rebuild *b, uint32_t position, const Digest *hash, uint8_t *to)
{
    const Place *place;

    if (b->self && segment_holds(b->self, position) && read_block(b->self, position, hash, to))
        return true;
    if (b->other && segment_holds(b->other, position) && read_block(b->other, position, hash, to))
        return true;
    if (!hash && b->images && image_blocks_read(b->images, position, to))
        return true;
    place = hash ? g_hash_table_lookup(b->r->wanted, hash) : NULL;
    return place && place->segment && read_block(place->segment, place->position, hash, to);
}

/* Where the list of hashes is damaged a hash may be, so it is only taken for what it is when a block has it. */
static bool complete_block(Rebuild *b, uint32_t number, unsigned block)
{
    SalvagedFrame *f = b->frame;
    bool known = number < b->own->entries->len && f->hashes_known;
    uint8_t *to = f->plain + (size_t)block * STORE_BLOCK_SIZE;

    if (!find_block(b, position_of(number, block), known ? &f->hashes[block] : NULL, to) &&
        (known || !find_block(b, position_of(number, block), &f->hashes[block], to)))
        return false;
    digest_of(to, STORE_BLOCK_SIZE, &f->hashes[block]);
    return true;
}

/* True when all of its blocks are the damaged file's own. */
static bool load_frame(Rebuild *b, uint32_t number)
{
    SalvagedFrame *f = b->frame;
    uint32_t own;

    *f = (SalvagedFrame){.blocks = FRAME_MAX_BLOCKS};
    if (number < b->own->entries->len)
        salvage_frame(b->own, number, f);
    own = f->good;
    b->good += (unsigned)__builtin_popcount(own);
    for (unsigned i = 0; i < f->blocks; i++) {
        if (f->good & 1u << i)
            continue;
        if (complete_block(b, number, i)) {
            f->good |= 1u << i;
            b->found++;
        } else if (number < b->own->entries->len) {
            b->lost++; /* of what only the other store knew we cannot say whether it was needed */
        }
    }
    return own == salvage_all(f->blocks);
}

static bool begin_file(Rebuild *b, GError **error)
{
    int dirfd;

    b->good = b->found = b->lost = 0;
    segment_file_free(g_steal_pointer(&b->file));
    return store_owner_dir(b->r->store, &dirfd, error) &&
           segment_file_new(dirfd, store_fresh_name(b->r->store, "segment"), b->own->class, &b->file, error);
}

static bool append_encoded(Rebuild *b, const uint8_t *plain, const Digest *hashes, unsigned blocks, GError **error)
{
    uint8_t encoding;
    uint32_t size = frame_encode(b->r->compressor, plain, hashes, blocks, b->encoded, &encoding);

    return segment_file_append(b->file, b->encoded, size, blocks, encoding, error);
}

/* --- as it was --- */

/* With its head made anew, and its payload as it stands in the file if that was good. The engine is what stands there: where that is what
 * was damaged, the bytes come together when the frames are encoded again. */
static bool append_as_it_was(Rebuild *b, uint32_t number, bool encode, GError **error)
{
    const SegmentEntry *e = &g_array_index(b->own->entries, SegmentEntry, number);
    uint32_t head = frame_head_size(e->blocks);

    if (!load_frame(b, number) || encode)
        return append_encoded(b, b->frame->plain, b->frame->hashes, b->frame->blocks, error);
    (void)frame_write_head(b->own->stored, b->frame->hashes, e->blocks, e->encoding, frame_engine(b->own->stored), e->size - head);
    return segment_file_append(b->file, b->own->stored, e->size, e->blocks, e->encoding, error);
}

/* *ret: all frames came together to the very bytes that the name says. */
static bool try_as_it_was(Rebuild *b, bool encode, bool *ret, GError **error)
{
    *ret = false;
    if (b->own->fd < 0 || b->own->entries->len == 0)
        return true;
    if (!begin_file(b, error))
        return false;
    for (uint32_t i = 0; i < b->own->entries->len; i++)
        if (!interrupt_check(error) || !append_as_it_was(b, i, encode, error))
            return false;
    if (b->lost)
        return true;
    if (!segment_file_finish(b->file, error))
        return false;
    *ret = digest_equal(&b->file->digest, &b->d->digest);
    return !*ret || segment_file_sync(b->file, error);
}

typedef struct TakeOver {
    Damage *d;
    int dirfd;
    char **name; /* of the staged file; NULL when it has its place */
} TakeOver;

/* Then gc's row of a repacking goes, too: by its own name there is a file again. */
static bool take_segment(Repair *r, void *arg, GError **error)
{
    TakeOver *t = arg;
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(r->store->segments_fd, &t->d->digest, true, name);

    if (dir < 0)
        return store_fail_errno(r->store, error, "open a folder of");
    if (!keep_damaged(r->store, dir, name, error) || !segment_place_file(r->store, r->db, t->dirfd, *t->name, &t->d->digest, error))
        return false;
    g_clear_pointer(t->name, g_free);
    return database_run(r->db, error, "UPDATE segment SET verified = ?1 WHERE digest = ?2", "id", g_get_real_time(), &t->d->digest);
}

static bool take_as_it_was(Rebuild *b, GError **error)
{
    TakeOver t = {b->d, b->file->dirfd, &b->file->name};

    if (!in_transaction(b->r, take_segment, &t, error))
        return false;
    if (b->found)
        return repaired(b->r, b->d, "has its bytes again; %" G_GUINT64_FORMAT " blocks came from elsewhere", b->found);
    return repaired(b->r, b->d, "has its bytes again, out of what was whole in it");
}

/* --- whole, from the other store --- */

static bool copy_segment(Repair *r, int from, int to, const Digest *digest, bool *ret_same, GError **error)
{
    g_autoptr(DigestStream) stream = digest_stream_new();
    g_autofree uint8_t *buffer = g_malloc(PIECE);
    uint64_t at = 0;
    Digest have;
    size_t n;

    for (;; at += n) {
        if (!interrupt_check(error) || !file_read_upto(from, buffer, PIECE, &n, "a segment", error))
            return false;
        if (n == 0)
            break;
        digest_stream_update(stream, buffer, n);
        if (!io_pwrite_full(to, buffer, n, at))
            return store_fail_errno(r->store, error, "write a segment to");
    }
    digest_stream_final(stream, &have);
    *ret_same = digest_equal(&have, digest);
    return io_fdatasync(to) == 0 || store_fail_errno(r->store, error, "write a segment to");
}

/* *ret_done false: the other store does not have it, or not whole. */
static bool take_whole(Rebuild *b, bool *ret_done, GError **error)
{
    auto_fd int from = b->other && !segment_is_moved(b->other) ? segment_open_file(b->r->from, &b->d->digest) : -1;
    g_autofree char *staged = NULL;
    auto_fd int to = -1;
    TakeOver t = {b->d, -1, &staged};
    bool ok;

    *ret_done = false;
    if (from < 0)
        return true;
    if (!store_owner_dir(b->r->store, &t.dirfd, error))
        return false;
    staged = store_fresh_name(b->r->store, "segment");
    to = io_open(t.dirfd, staged, O_RDWR | O_CREAT | O_EXCL, 0644);
    if (to < 0)
        return store_fail_errno(b->r->store, error, "write a segment to");
    ok = copy_segment(b->r, from, to, &b->d->digest, ret_done, error) && (!*ret_done || in_transaction(b->r, take_segment, &t, error));
    if (staged)
        (void)io_unlink(t.dirfd, staged, 0);
    return ok && (!*ret_done || repaired(b->r, b->d, "was taken whole from store '%s'", b->r->from->path));
}

/* --- blocks in a new segment --- */

static bool append_blocks(Rebuild *b, uint32_t number, GError **error)
{
    SalvagedFrame *f = b->frame;
    unsigned count = 0;

    (void)load_frame(b, number);
    for (unsigned i = 0; i < f->blocks; i++) {
        if (!(f->good & 1u << i))
            continue;
        memmove(f->plain + (size_t)count * STORE_BLOCK_SIZE, f->plain + (size_t)i * STORE_BLOCK_SIZE, STORE_BLOCK_SIZE);
        f->hashes[count] = f->hashes[i];
        map_body_append(b->moved->body, position_of(number, i), 0, position_of(b->file->entries->len, count++));
    }
    return count == 0 || append_encoded(b, f->plain, f->hashes, count, error);
}

static bool write_blocks(Rebuild *b, GError **error)
{
    b->moved = segment_moved_new(b->frames, map_body_new((uint64_t)b->frames * FRAME_MAX_BYTES, b->own->class));
    if (!begin_file(b, error))
        return false;
    for (uint32_t i = 0; i < b->frames; i++)
        if (!interrupt_check(error) || !append_blocks(b, i, error))
            return false;
    if (!segment_file_finish(b->file, error) || !segment_file_sync(b->file, error))
        return false;
    g_array_append_val(b->moved->body->segments, b->file->digest);
    return true;
}

static bool hold_new(Repair *r, const Digest *name, const Digest *target, GError **error)
{
    return database_run(r->db, error, "INSERT OR IGNORE INTO moved VALUES (?1,?2)", "dd", name, target);
}

/* Earlier names, whose tables lead into this segment. */
static bool list_names(Rebuild *b, GArray **ret, GError **error)
{
    return catalog_digests(b->r->db, ret, error, "SELECT segment FROM moved WHERE target = ?1", &b->d->digest);
}

static bool place_new(Repair *r, void *arg, GError **error)
{
    Rebuild *b = arg;
    g_autoptr(GArray) names = NULL;

    if (!segment_place_own(r->store, r->db, b->file, g_get_real_time(), error) || !hold_new(r, &b->d->digest, &b->file->digest, error) ||
        !list_names(b, &names, error))
        return false;
    for (guint i = 0; i < names->len; i++)
        if (!hold_new(r, &g_array_index(names, Digest, i), &b->file->digest, error))
            return false;
    return true;
}

/* A table that led to the damaged segment leads to where its blocks are now. */
static MapBody *redirect(const Rebuild *b, const MapBody *old)
{
    g_autoptr(GHashTable) indexes = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    MapBody *body = map_body_new(old->size, old->class);

    for (guint i = 0; i < old->runs->len; i++) {
        const MapRun *run = &g_array_index(old->runs, MapRun, i);
        const Digest *segment = &g_array_index(old->segments, Digest, run->segment);
        bool here = digest_equal(segment, &b->d->digest);
        uint32_t index = map_body_segment(body, indexes, here ? &b->file->digest : segment);
        Digest target;

        for (uint32_t j = 0; j < run->count; j++) {
            uint32_t position = run->position + j;

            if (!here || segment_moved_find(b->moved, position, &target, &position))
                map_body_append(body, run->block + j, index, position);
        }
    }
    return body;
}

static bool redirect_name(Rebuild *b, const Digest *name, GError **error)
{
    g_autoptr(SegmentMoved) old = NULL, moved = NULL;

    if (!segment_moved_load(b->r->store, name, &old, NULL) || !old)
        return true; /* it is damaged or needed by nobody: another entry of the list */
    moved = segment_moved_new(old->frames, redirect(b, old->body));
    segment_forget(b->r->store, name);
    return segment_moved_write(b->r->store, name, moved, error) &&
           database_run(b->r->db, error, "DELETE FROM moved WHERE segment = ?1 AND target = ?2", "dd", name, &b->d->digest);
}

static bool drop_damaged(Rebuild *b, GError **error)
{
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(b->r->store->segments_fd, &b->d->digest, false, name);

    if (!keep_damaged(b->r->store, dir, name, error))
        return false;
    if (dir >= 0 && ((io_unlink(dir, name, 0) < 0 && errno != ENOENT) || io_fsync(dir) < 0))
        return store_fail_errno(b->r->store, error, "take a damaged segment out of");
    segment_forget(b->r->store, &b->d->digest);
    return catalog_remove_segment(b->r->db, &b->d->digest, error);
}

static bool switch_to_new(Repair *r, void *arg, GError **error)
{
    Rebuild *b = arg;
    g_autoptr(GArray) names = NULL;

    if (b->d->kind == DAMAGE_TABLE) {
        g_autofree char *name = g_path_get_basename(b->d->file);
        char plain[IO_NAME_SIZE];
        auto_fd int dir = io_open_fanout(r->store->segments_fd, &b->d->digest, false, plain);

        if (!keep_damaged(r->store, dir, name, error))
            return false;
    }
    if (!segment_moved_write(r->store, &b->d->digest, b->moved, error) || !list_names(b, &names, error))
        return false;
    for (guint i = 0; i < names->len; i++)
        if (!redirect_name(b, &g_array_index(names, Digest, i), error))
            return false;
    return drop_damaged(b, error);
}

static char *counts_of(const Rebuild *b)
{
    return g_strdup_printf("%" G_GUINT64_FORMAT " of its own, %" G_GUINT64_FORMAT " from elsewhere", b->good, b->found);
}

static uint64_t blocks_of(const MapBody *body)
{
    uint64_t blocks = 0;

    for (guint i = 0; i < body->runs->len; i++)
        blocks += g_array_index(body->runs, MapRun, i).count;
    return blocks;
}

/* With blocks missing only when readers could not have anything of it otherwise. */
static bool move_blocks(Rebuild *b, GError **error)
{
    g_autofree char *counts = NULL;
    char hex[DIGEST_HEX_SIZE];
    uint64_t lost;

    if (b->frames == 0)
        return not_repaired(b->d, "there is no copy of it%s", b->r->from ? "" : "; give a store that has one with --from");
    if (!write_blocks(b, error))
        return false;
    if (digest_equal(&b->file->digest, &b->d->digest)) /* its very bytes, after all */
        return take_as_it_was(b, error);
    counts = counts_of(b);
    lost = b->lost;
    if (b->gaps && b->good + b->found <= blocks_of(b->gaps->body))
        return not_repaired(b->d, "its blocks are nowhere else%s", b->r->from ? "" : "; give a store that has them with --from");
    if (b->good + b->found == 0 || (lost && b->own->opens))
        return not_repaired(b->d, "%" G_GUINT64_FORMAT " of its blocks are nowhere else%s", lost, b->r->from ? "" : "; give a store that has them with --from");
    if (!in_transaction(b->r, place_new, b, error) || !in_transaction(b->r, switch_to_new, b, error))
        return false;
    digest_to_hex(&b->file->digest, hex);
    if (lost) {
        g_ptr_array_add(b->r->repairs, g_strdup_printf("%s: what is left of it is in segments/%.2s/%s now (blocks: %s)", b->d->file, hex, hex, counts));
        return not_repaired(b->d, "%" G_GUINT64_FORMAT " of its blocks are nowhere else", lost);
    }
    return repaired(b->r, b->d, "has its blocks in segments/%.2s/%s now (%s)", hex, hex, counts);
}

static bool repair_segment(Repair *r, Damage *d, GError **error)
{
    g_auto(Rebuild) b = {0};
    bool done = false;

    if (!rebuild_init(&b, r, d, error) || !take_whole(&b, &done, error))
        return false;
    for (int encode = 0; !done && encode < 2; encode++) {
        bool same;

        if (!try_as_it_was(&b, encode, &same, error))
            return false;
        if (same)
            return take_as_it_was(&b, error);
        if (b.lost)
            break;
    }
    return done || move_blocks(&b, error);
}

/* --- blobs --- */

typedef struct TakeBlob {
    Damage *d;
    StagedBlob *staged;
} TakeBlob;

static bool take_blob(Repair *r, void *arg, GError **error)
{
    TakeBlob *t = arg;
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(r->store->blobs_fd, &t->d->digest, true, name);
    g_autofree char *old = g_path_get_basename(t->d->file);
    bool same = g_str_has_suffix(old, BLOB_PACKED_SUFFIX) == t->staged->packed;

    if (dir < 0)
        return store_fail_errno(r->store, error, "open a folder of");
    if (!keep_damaged(r->store, dir, old, error) || !blob_place(r->store, r->db, t->staged, g_get_real_time(), error))
        return false;
    if (!same && io_unlink(dir, old, 0) < 0 && errno != ENOENT)
        return store_fail_errno(r->store, error, "take a damaged blob out of");
    return store_catalog_map(r->store, r->db, &t->d->digest, error);
}

/* From its own content, or the other store. *ret_how NULL: nobody has it. */
static bool stage_blob(Repair *r, Damage *d, StagedBlob *ret, char **ret_how, GError **error)
{
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GError) why = NULL;

    if (!d->missing && store_blob_get(r->store, &d->digest, BLOB_MAX, &bytes, NULL)) {
        *ret_how = g_strdup("was written anew from its own content");
        return blob_stage(r->store, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), ret, error);
    }
    if (!r->from || !blob_file_exists(r->from, &d->digest))
        return true;
    if (blob_stage_copy(r->store, r->from, &d->digest, ret, &why)) {
        *ret_how = g_strdup_printf("was taken from store '%s'", r->from->path);
        return true;
    }
    blob_unstage(ret);
    if (why->code != KILN_ERROR_NO_SPACE && why->code != KILN_ERROR_INTERRUPTED)
        return true; /* damaged there as well */
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

static bool is_ledger_alone(const Damage *d)
{
    json_t *others = json_object_get(d->json, "others");

    return json_array_size(json_object_get(d->json, "images")) == 0 && json_array_size(others) == 1 &&
           g_strcmp0(json_string_value(json_array_get(others, 0)), "the ledger") == 0;
}

static bool drop_blob(Repair *r, void *arg, GError **error)
{
    Damage *d = arg;
    char name[IO_NAME_SIZE];
    auto_fd int dir = io_open_fanout(r->store->blobs_fd, &d->digest, false, name);
    g_autofree char *file = g_path_get_basename(d->file);

    return keep_damaged(r->store, dir, file, error) && blob_file_remove(r->store, &d->digest, error) &&
           database_run(r->db, error, "DELETE FROM blob WHERE digest = ?1", "d", &d->digest);
}

/* state.db is whole, or fsck would not have come this far: the ledger is written out again from it. */
static bool renew_ledger(Repair *r, Damage *d, GError **error)
{
    if (!store_ledger_forget_head(r->store, error) || !store_ledger_write(r->store, true, error) || !in_transaction(r, drop_blob, d, error))
        return false;
    return repaired(r, d, "is not needed any more: the ledger was written anew from state.db");
}

static bool repair_blob(Repair *r, Damage *d, GError **error)
{
    StagedBlob staged = {.dirfd = -1};
    TakeBlob t = {d, &staged};
    g_autofree char *how = NULL;
    bool ok;

    if (!stage_blob(r, d, &staged, &how, error))
        return false;
    if (!how)
        return is_ledger_alone(d) ? renew_ledger(r, d, error)
                                  : not_repaired(d, "there is no copy of it%s", r->from ? "" : "; give a store that has one with --from");
    ok = in_transaction(r, take_blob, &t, error);
    blob_unstage(&staged);
    return ok && repaired(r, d, "%s", how);
}

/* --- all --- */

static bool lock_tables(Store *store, int *ret, GError **error)
{
    auto_fd int lock = io_open(store->dirfd, "index/repack.lock", O_RDWR | O_CREAT, 0644);

    if (lock < 0)
        return store_fail_errno(store, error, "lock repairing in");
    if (!file_lock(lock, "index/repack.lock", "waiting for a gc that repacks segments", error))
        return false;
    *ret = g_steal_fd(&lock);
    return true;
}

/* What goes wrong with one file is its own sentence, unless it will go wrong with all. */
static bool repair_one(Repair *r, Damage *d, GError **error)
{
    g_autoptr(GError) why = NULL;
    bool ok = d->kind == DAMAGE_BLOB ? repair_blob(r, d, &why) : repair_segment(r, d, &why);

    if (ok)
        return true;
    if (why->code == KILN_ERROR_NO_SPACE || why->code == KILN_ERROR_INTERRUPTED) {
        g_propagate_error(error, g_steal_pointer(&why));
        return fail_prefix(error, "repair of %s", d->file);
    }
    return not_repaired(d, "%s", why->message);
}

/* Blobs first: maps among them say what segments must hold, and which of them are needed at all. */
static bool repair_all(Repair *r, DamageList *damage, GError **error)
{
    for (int blobs = 1; blobs >= 0; blobs--)
        for (guint i = 0; i < damage_count(damage); i++) {
            Damage *d = damage_nth(damage, i);

            if ((d->kind == DAMAGE_BLOB) == blobs && !repair_one(r, d, error))
                return false;
        }
    return true;
}

bool store_repair(Store *store, Store *from, DamageList *damage, GPtrArray *repairs, GError **error)
{
    Repair r = {.store = store, .from = from, .repairs = repairs};
    auto_fd int lock = -1;
    bool ok;

    if (!store_writable(store, error))
        return false;
    if (damage_count(damage) == 0)
        return true;
    if (!store_catalog(store, &r.db, error) || !lock_tables(store, &lock, error))
        return false;
    r.compressor = compressor_new(COMPRESS_LEVEL);
    r.wanted = g_hash_table_new_full(digest_hash, digest_equal_gfunc, NULL, g_free);
    ok = find_lost_blocks(&r, damage, error) && repair_all(&r, damage, error);
    g_hash_table_unref(r.wanted);
    compressor_free(r.compressor);
    return ok;
}
