/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pushing, unit by unit:
 *
 *   needs     the blocks that the unit's maps name, less those that the remote has, whole or by its tables
 *   packs     the rest: frames that are needed whole are taken over as they are stored, single blocks are gathered into new frames
 *   order     packs, then tables that lead to them, then blobs; the caller's index comes last
 *
 * A pack is put when it is full or its unit ends, and its tables with it, so that after an interruption it need not be brought again. Equal needs make
 * equal packs.
 */
#include "store/remote-push.h"

#include "base/error.h"
#include "base/interrupt.h"
#include "base/scope.h"
#include "store/block-needs.h"
#include "store/blob.h"
#include "store/segment-moved.h"
#include "store/store-private.h"
#include "store/writer.h"

#include <string.h>
#include <sys/stat.h>

#define OBJECTS_MAX ((size_t)1 << 22)

/* A table of the remote; read when it is first needed. */
typedef struct Table {
    RemoteTablePlace place;
    SegmentMoved *moved;
} Table;

/* A block that went into a pack. */
typedef struct Move {
    const SegmentNeeds *needs;
    uint32_t position, to;
} Move;

/* A segment being written for the remote: of one class. */
typedef struct Pack {
    SegmentFile *file; /* NULL: nothing is in it */
    GArray *moves;     /* of Move, of what is written */
    GArray *loose;     /* of Move, at most a frame of them; @blocks has their bytes */
    uint8_t *blocks;
} Pack;

struct RemotePush {
    Store *store;
    Remote *remote;
    bool cache;
    GHashTable *keys;   /* what is there: keys */
    GHashTable *tables; /* Digest* of a segment -> GPtrArray of Table* */
    Pack packs[2];      /* by class */
    uint8_t *frame, *plain;
    RemoteReport report;
};

/* --- what is there --- */

static void table_free(gpointer data)
{
    segment_moved_free(((Table *)data)->moved);
    g_free(data);
}

static GPtrArray *tables_of(RemotePush *p, const Digest *segment)
{
    GPtrArray *list = g_hash_table_lookup(p->tables, segment);

    if (!list) {
        list = g_ptr_array_new_with_free_func(table_free);
        g_hash_table_insert(p->tables, g_memdup2(segment, sizeof(*segment)), list);
    }
    return list;
}

static void note_table(RemotePush *p, const char *key, bool cache)
{
    g_auto(GStrv) parts = g_strsplit(key, "/", -1);
    guint n = g_strv_length(parts);
    Digest segment, table;
    Table *one;

    if (n < 3 || !digest_parse(parts[n - 2], &segment) || !digest_parse(parts[n - 1], &table))
        return;
    one = g_new0(Table, 1);
    one->place = (RemoteTablePlace){.table = table, .cache = cache};
    g_ptr_array_add(tables_of(p, &segment), one);
}

static bool list_objects(RemotePush *p, const char *prefix, bool tables, bool cache, GError **error)
{
    g_autoptr(GPtrArray) list = NULL;

    if (!remote_list(p->remote, prefix, OBJECTS_MAX, &list, error))
        return false;
    for (guint i = 0; i < list->len; i++) {
        const char *key = ((RemoteEntry *)list->pdata[i])->key;

        g_hash_table_add(p->keys, g_strdup(key));
        if (tables)
            note_table(p, key, cache);
    }
    return true;
}

static bool list_all(RemotePush *p, GError **error)
{
    return list_objects(p, "segments/", false, false, error) && list_objects(p, "moved/", true, false, error) &&
           list_objects(p, "blobs/", false, false, error) &&
           (!p->cache || (list_objects(p, "cache/segments/", false, true, error) && list_objects(p, "cache/moved/", true, true, error) &&
                          list_objects(p, "cache/blobs/", false, true, error)));
}

static void pack_empty(Pack *pack)
{
    g_clear_pointer(&pack->file, segment_file_free);
    g_array_set_size(pack->moves, 0);
    g_array_set_size(pack->loose, 0);
}

static void pack_clear(Pack *pack)
{
    g_clear_pointer(&pack->file, segment_file_free);
    g_clear_pointer(&pack->moves, g_array_unref);
    g_clear_pointer(&pack->loose, g_array_unref);
    g_clear_pointer(&pack->blocks, g_free);
}

bool remote_push_new(Store *store, Remote *remote, bool cache, RemotePush **ret, GError **error)
{
    g_autoptr(RemotePush) p = g_new0(RemotePush, 1);

    p->store = store;
    p->remote = remote;
    p->cache = cache;
    p->keys = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    p->tables = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, (GDestroyNotify)g_ptr_array_unref);
    p->frame = g_malloc(FRAME_MAX_STORED);
    p->plain = g_malloc(FRAME_MAX_BYTES);
    for (int class = 0; class < 2; class++) {
        p->packs[class].moves = g_array_new(FALSE, FALSE, sizeof(Move));
        p->packs[class].loose = g_array_new(FALSE, FALSE, sizeof(Move));
        p->packs[class].blocks = g_malloc(FRAME_MAX_BYTES);
    }
    if (!list_all(p, error))
        return false;
    *ret = g_steal_pointer(&p);
    return true;
}

void remote_push_free(RemotePush *p)
{
    if (!p)
        return;
    pack_clear(&p->packs[0]);
    pack_clear(&p->packs[1]);
    g_hash_table_unref(p->keys);
    g_hash_table_unref(p->tables);
    g_free(p->frame);
    g_free(p->plain);
    g_free(p);
}

void remote_report_add(RemoteReport *to, const RemoteReport *from)
{
    to->segments += from->segments;
    to->blobs += from->blobs;
    to->bytes += from->bytes;
    to->present += from->present;
}

const RemoteReport *remote_push_report(const RemotePush *push)
{
    return &push->report;
}

Store *remote_push_store(const RemotePush *push)
{
    return push->store;
}

Remote *remote_push_remote(const RemotePush *push)
{
    return push->remote;
}

static bool has_key(RemotePush *p, char *key /* taken */)
{
    bool there = g_hash_table_contains(p->keys, key);

    g_free(key);
    return there;
}

/* --- the unit's text --- */

static json_t *table_json(const RemoteTablePlace *place)
{
    char hex[DIGEST_HEX_SIZE];

    return json_pack("[s, b]", digest_to_hex(&place->table, hex), place->cache);
}

static void say_whole(json_t *unit, const Digest *segment, bool cache)
{
    char hex[DIGEST_HEX_SIZE];

    json_array_append_new(json_object_get(unit, "segments"), json_pack("[s, b]", digest_to_hex(segment, hex), cache));
}

static void say_tables(json_t *unit, const Digest *segment, json_t *tables /* taken */)
{
    char hex[DIGEST_HEX_SIZE];

    json_array_append_new(json_object_get(unit, "segments"), json_pack("[s, o]", digest_to_hex(segment, hex), tables));
}

/* --- tables that are there --- */

static bool load_table(RemotePush *p, const Digest *segment, Table *table, GError **error)
{
    g_autofree char *key = remote_table_key(segment, &table->place.table, table->place.cache);
    g_autoptr(GBytes) bytes = NULL;

    return table->moved || (remote_get(p->remote, key, &table->place.table, MOVED_MAX, &bytes, error) &&
                            segment_moved_decode(segment, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &table->moved, error));
}

/* A table whose segments somebody took away leads nowhere. */
static bool leads_somewhere(RemotePush *p, const Table *table)
{
    for (guint i = 0; i < table->moved->body->segments->len; i++)
        if (!has_key(p, remote_segment_key(&g_array_index(table->moved->body->segments, Digest, i), table->place.cache)))
            return false;
    return true;
}

static bool subtract_tables(RemotePush *p, SegmentNeeds *needs, json_t *used, GError **error)
{
    GPtrArray *tables = g_hash_table_lookup(p->tables, &needs->segment);

    for (guint i = 0; tables && needs->count && i < tables->len; i++) {
        Table *table = tables->pdata[i];

        if (!load_table(p, &needs->segment, table, error))
            return false;
        if (leads_somewhere(p, table) && segment_needs_subtract(needs, table->moved))
            json_array_append_new(used, table_json(&table->place));
    }
    return true;
}

/* --- whole segments --- */

/* Of a segment that is where its name says. */
static bool needs_frame(const SegmentNeeds *needs, const Segment *segment, uint32_t frame)
{
    for (unsigned block = 0; block < segment_entry(segment, frame)->blocks; block++)
        if (!segment_needs(needs, position_of(frame, block)))
            return false;
    return true;
}

static bool needs_all(const SegmentNeeds *needs, const Segment *segment)
{
    for (uint32_t frame = 0; frame < segment_frames(segment); frame++)
        if (!needs_frame(needs, segment, frame))
            return false;
    return true;
}

static bool put_whole(RemotePush *p, const Digest *digest, GError **error)
{
    g_autofree char *key = remote_segment_key(digest, p->cache);
    auto_fd int fd = segment_open_file(p->store, digest);
    struct stat st;
    bool added;

    if (fd < 0 || fstat(fd, &st) < 0)
        return store_fail_errno(p->store, error, "open a segment of");
    if (!remote_put_file(p->remote, key, fd, digest, true, &added, error))
        return false;
    p->report.segments += added;
    p->report.bytes += added ? (uint64_t)st.st_size : 0;
    g_hash_table_add(p->keys, g_steal_pointer(&key));
    return true;
}

/* --- packs --- */

static bool open_pack(RemotePush *p, BlockClass class, GError **error)
{
    Pack *pack = &p->packs[class];
    int owner;

    return pack->file || (store_owner_dir(p->store, &owner, error) &&
                          segment_file_new(owner, store_fresh_name(p->store, "pack"), class, &pack->file, error));
}

static bool append_frame(RemotePush *p, BlockClass class, uint32_t size, unsigned blocks, uint8_t encoding, uint32_t *ret_frame, GError **error)
{
    Pack *pack = &p->packs[class];

    if (!open_pack(p, class, error))
        return false;
    *ret_frame = pack->file->entries->len;
    return segment_file_append(pack->file, p->frame, size, blocks, encoding, error);
}

static bool flush_loose(RemotePush *p, BlockClass class, GError **error)
{
    Pack *pack = &p->packs[class];
    Digest hashes[FRAME_MAX_BLOCKS];
    uint32_t size, frame;
    uint8_t encoding;

    if (pack->loose->len == 0)
        return true;
    store_hash_blocks(pack->blocks, pack->loose->len, hashes);
    size = frame_encode(compressor_of_thread(), pack->blocks, hashes, pack->loose->len, p->frame, &encoding);
    if (!append_frame(p, class, size, pack->loose->len, encoding, &frame, error))
        return false;
    for (guint i = 0; i < pack->loose->len; i++) {
        Move *move = &g_array_index(pack->loose, Move, i);

        move->to = position_of(frame, i);
        g_array_append_vals(pack->moves, move, 1);
    }
    g_array_set_size(pack->loose, 0);
    return true;
}

static gint by_origin(gconstpointer a, gconstpointer b)
{
    const Move *one = a, *other = b;
    int c = memcmp(one->needs->segment.bytes, other->needs->segment.bytes, DIGEST_SIZE);

    return c ? c : one->position < other->position ? -1 : one->position > other->position;
}

static bool put_table(RemotePush *p, const Pack *pack, guint from, guint to, BlockClass class, GError **error)
{
    const Digest *name = &g_array_index(pack->moves, Move, from).needs->segment;
    g_autoptr(GByteArray) bytes = NULL;
    g_autofree char *key = NULL;
    Segment *segment;
    MapBody *body;
    Table *table;
    bool added;

    if (!segment_get(p->store, name, &segment, error))
        return false;
    body = map_body_new((uint64_t)segment_frames(segment) * FRAME_MAX_BYTES, class);
    g_array_append_val(body->segments, pack->file->digest);
    for (guint i = from; i < to; i++)
        map_body_append(body, g_array_index(pack->moves, Move, i).position, 0, g_array_index(pack->moves, Move, i).to);
    table = g_new0(Table, 1);
    table->moved = segment_moved_new(segment_frames(segment), body);
    table->place.cache = p->cache;
    g_ptr_array_add(tables_of(p, name), table);
    bytes = segment_moved_encode(name, table->moved);
    digest_of(bytes->data, bytes->len, &table->place.table);
    key = remote_table_key(name, &table->place.table, p->cache);
    if (!remote_put(p->remote, key, bytes->data, bytes->len, true, &added, error))
        return false;
    p->report.bytes += added ? bytes->len : 0;
    g_hash_table_add(p->keys, g_steal_pointer(&key));
    return true;
}

static bool put_tables(RemotePush *p, const Pack *pack, BlockClass class, GError **error)
{
    guint from = 0;

    g_array_sort(pack->moves, by_origin);
    while (from < pack->moves->len) {
        const SegmentNeeds *needs = g_array_index(pack->moves, Move, from).needs;
        guint to = from;

        while (to < pack->moves->len && g_array_index(pack->moves, Move, to).needs == needs)
            to++;
        if (!put_table(p, pack, from, to, class, error))
            return false;
        from = to;
    }
    return true;
}

static bool put_pack(RemotePush *p, BlockClass class, GError **error)
{
    Pack *pack = &p->packs[class];
    g_autofree char *key = NULL;
    bool added, ok;

    if (!flush_loose(p, class, error))
        return false;
    if (!pack->file)
        return true;
    if (!segment_file_finish(pack->file, error))
        return false;
    key = remote_segment_key(&pack->file->digest, p->cache);
    if (!remote_put_file(p->remote, key, pack->file->fd, &pack->file->digest, true, &added, error))
        return false;
    p->report.segments += added;
    p->report.bytes += added ? pack->file->size : 0;
    g_hash_table_add(p->keys, g_steal_pointer(&key));
    ok = put_tables(p, pack, class, error);
    pack_empty(pack);
    return ok;
}

static bool is_full(const Pack *pack)
{
    return pack->file && (pack->file->size >= SEGMENT_TARGET_SIZE || pack->file->entries->len >= SEGMENT_MAX_FRAMES - 2);
}

static bool take_frame(RemotePush *p, const SegmentNeeds *needs, Segment *segment, uint32_t frame, BlockClass class, GError **error)
{
    const SegmentEntry *entry = segment_entry(segment, frame);
    FrameHead head;
    uint32_t to;

    if (!segment_stored(segment, frame, p->frame, &head, p->plain, error) ||
        !append_frame(p, class, entry->size, entry->blocks, entry->encoding, &to, error))
        return false;
    for (unsigned i = 0; i < entry->blocks; i++) {
        Move move = {.needs = needs, .position = position_of(frame, i), .to = position_of(to, i)};

        g_array_append_val(p->packs[class].moves, move);
    }
    return true;
}

static bool take_block(RemotePush *p, const SegmentNeeds *needs, Segment *segment, uint32_t position, BlockClass class, GError **error)
{
    Pack *pack = &p->packs[class];
    Move move = {.needs = needs, .position = position};

    if (!segment_read(segment, position_frame(position), position_block(position) * STORE_BLOCK_SIZE, STORE_BLOCK_SIZE,
                      pack->blocks + (size_t)pack->loose->len * STORE_BLOCK_SIZE, error))
        return false;
    g_array_append_val(pack->loose, move);
    return pack->loose->len < FRAME_MAX_BLOCKS || flush_loose(p, class, error);
}

static bool pack_frame(RemotePush *p, const SegmentNeeds *needs, Segment *segment, uint32_t frame, BlockClass class, GError **error)
{
    bool any = false;

    for (unsigned i = 0; i < FRAME_MAX_BLOCKS; i++)
        any = any || segment_needs(needs, position_of(frame, i));
    if (!any)
        return true;
    if (!segment_is_moved(segment) && needs_frame(needs, segment, frame))
        return take_frame(p, needs, segment, frame, class, error);
    for (unsigned i = 0; i < FRAME_MAX_BLOCKS; i++)
        if (segment_needs(needs, position_of(frame, i)) && !take_block(p, needs, segment, position_of(frame, i), class, error))
            return false;
    return true;
}

static bool pack_segment(RemotePush *p, const SegmentNeeds *needs, Segment *segment, GError **error)
{
    BlockClass class = segment_class(segment);

    for (uint32_t frame = 0; frame * FRAME_MAX_BLOCKS < needs->positions; frame++)
        if (!interrupt_check(error) || !pack_frame(p, needs, segment, frame, class, error) ||
            (is_full(&p->packs[class]) && !put_pack(p, class, error)))
            return false;
    return true;
}

/* --- a unit --- */

typedef struct Unit {
    RemotePush *p;
    json_t *json;
    GPtrArray *packed; /* of SegmentNeeds*: as they were before packing, to say by which tables they are found */
} Unit;

static bool push_segment(Unit *u, SegmentNeeds *needs, GError **error)
{
    RemotePush *p = u->p;
    g_autoptr(SegmentNeeds) all = NULL;
    g_autoptr(json_t) used = json_array();
    Segment *segment;
    bool whole;

    for (int cache = 0; cache <= p->cache; cache++)
        if (has_key(p, remote_segment_key(&needs->segment, cache))) {
            p->report.present++;
            say_whole(u->json, &needs->segment, cache);
            return true;
        }
    segment_forget(p->store, &needs->segment); /* what counts is which file is there now */
    if (!segment_get(p->store, &needs->segment, &segment, error))
        return false;
    if (segment_class(segment) != BLOCK_PUBLIC && !p->cache)
        return fail(error, "an image refers to a private segment; run kiln fsck");
    whole = !segment_is_moved(segment) && needs_all(needs, segment);
    all = segment_needs_copy(needs);
    if (!whole || g_hash_table_contains(p->tables, &needs->segment)) {
        if (!subtract_tables(p, needs, used, error))
            return false;
        whole = whole && needs_all(needs, segment);
    }
    if (whole) {
        say_whole(u->json, &needs->segment, p->cache);
        return put_whole(p, &needs->segment, error);
    }
    if (needs->count == 0) {
        p->report.present++;
        say_tables(u->json, &needs->segment, g_steal_pointer(&used));
        return true;
    }
    g_ptr_array_add(u->packed, g_steal_pointer(&all));
    return pack_segment(p, needs, segment, error);
}

/* Now that the tables are there: which of them does the segment need? */
static bool say_packed(Unit *u, SegmentNeeds *needs, GError **error)
{
    g_autoptr(json_t) used = json_array();

    if (!subtract_tables(u->p, needs, used, error))
        return false;
    if (needs->count > 0)
        return fail(error, "%u blocks of a segment were not packed", needs->count);
    say_tables(u->json, &needs->segment, g_steal_pointer(&used));
    return true;
}

static bool push_blocks(Unit *u, const GArray *maps, GError **error)
{
    RemotePush *p = u->p;
    g_autoptr(BlockNeeds) needs = block_needs_new();

    for (guint i = 0; i < maps->len; i++) {
        g_autoptr(StoreMap) map = NULL;

        if (!store_map_open(p->store, &g_array_index(maps, Digest, i), &map, error) || !block_needs_add(needs, store_map_body(map), error))
            return false;
        if (store_map_body(map)->class != BLOCK_PUBLIC && !p->cache)
            return fail(error, "an image has a private map; run kiln fsck");
    }
    for (guint i = 0; i < needs->list->len; i++)
        if (!push_segment(u, needs->list->pdata[i], error))
            return false;
    if (!put_pack(p, BLOCK_PRIVATE, error) || !put_pack(p, BLOCK_PUBLIC, error))
        return false;
    for (guint i = 0; i < u->packed->len; i++)
        if (!say_packed(u, u->packed->pdata[i], error))
            return false;
    return true;
}

static bool push_blob(Unit *u, const Digest *digest, GError **error)
{
    RemotePush *p = u->p;
    g_autofree char *key = NULL;
    char hex[DIGEST_HEX_SIZE];
    bool packed, cache = p->cache, added = false;
    auto_fd int fd = blob_file_open(p->store, digest, &packed);
    struct stat st;
    Digest stored = *digest;

    if (fd < 0 || fstat(fd, &st) < 0)
        return store_fail_errno(p->store, error, "open a blob of");
    if (cache && has_key(p, remote_blob_key(digest, packed, false)))
        cache = false;
    key = remote_blob_key(digest, packed, cache);
    if (!g_hash_table_contains(p->keys, key)) {
        if (packed && !digest_of_fd(fd, &stored, error))
            return false;
        if (!remote_put_file(p->remote, key, fd, &stored, true, &added, error))
            return false;
        g_hash_table_add(p->keys, g_strdup(key));
    }
    p->report.blobs += added;
    p->report.bytes += added ? (uint64_t)st.st_size : 0;
    p->report.present += !added;
    json_array_append_new(json_object_get(u->json, "blobs"),
                          json_pack("[s, I, b, b]", digest_to_hex(digest, hex), (json_int_t)st.st_size, packed, cache));
    return true;
}

static bool push_unit(Unit *u, const GArray *blobs, const GArray *maps, GError **error)
{
    char hex[DIGEST_HEX_SIZE];

    if (!push_blocks(u, maps, error))
        return false;
    for (guint i = 0; i < maps->len; i++)
        json_array_append_new(json_object_get(u->json, "maps"), json_string(digest_to_hex(&g_array_index(maps, Digest, i), hex)));
    for (guint i = 0; i < blobs->len; i++)
        if (!push_blob(u, &g_array_index(blobs, Digest, i), error))
            return false;
    return true;
}

bool remote_push_unit(RemotePush *push, const GArray *blobs, const GArray *maps, json_t **ret, GError **error)
{
    g_autoptr(GPtrArray) packed = g_ptr_array_new_with_free_func((GDestroyNotify)segment_needs_free);
    g_autoptr(json_t) json = json_pack("{s:[], s:[], s:[]}", "blobs", "maps", "segments");
    Unit unit = {.p = push, .json = json, .packed = packed};

    for (int class = 0; class < 2; class++)
        pack_empty(&push->packs[class]); /* what a failed unit left in them is of no use to this one */
    if (!push_unit(&unit, blobs, maps, error))
        return false;
    *ret = g_steal_pointer(&json);
    return true;
}

/* --- is it still there --- */

static bool has_segment(RemotePush *p, const RemoteSegmentPlace *place)
{
    if (!place->tables)
        return has_key(p, remote_segment_key(&place->segment, place->cache));
    for (guint i = 0; i < place->tables->len; i++) {
        const RemoteTablePlace *wanted = &g_array_index(place->tables, RemoteTablePlace, i);
        GPtrArray *tables = g_hash_table_lookup(p->tables, &place->segment);
        bool found = false;

        for (guint j = 0; tables && !found && j < tables->len; j++) {
            Table *table = tables->pdata[j];

            found = table->place.cache == wanted->cache && digest_equal(&table->place.table, &wanted->table) &&
                    load_table(p, &place->segment, table, NULL) && leads_somewhere(p, table);
        }
        if (!found)
            return false;
    }
    return true;
}

bool remote_push_has_unit(RemotePush *push, const RemoteUnit *unit)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, unit->blobs);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const RemoteBlobPlace *place = value;

        if (!has_key(push, remote_blob_key(&place->digest, place->packed, place->cache)))
            return false;
    }
    g_hash_table_iter_init(&iter, unit->segments);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (!has_segment(push, value))
            return false;
    return true;
}
