/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segment files: read by frame number (Segment), and written front to back (SegmentFile). No database.
 */
#ifndef KILN_STORE_SEGMENT_H
#define KILN_STORE_SEGMENT_H

#include "store/frame.h"

/* A place in a segment: position = frame * 32 + block. */
static inline uint32_t position_of(uint32_t frame, unsigned block)
{
    return frame * FRAME_MAX_BLOCKS + block;
}
static inline uint32_t position_frame(uint32_t position)
{
    return position / FRAME_MAX_BLOCKS;
}
static inline unsigned position_block(uint32_t position)
{
    return position % FRAME_MAX_BLOCKS;
}

typedef struct SegmentEntry {
    uint32_t offset, size; /* segments stay under 4 GiB */
    uint8_t blocks, encoding;
} SegmentEntry;

/* --- reading; segments belong to the store that opened them and live as long --- */
typedef struct Segment Segment;

/* The tables an open store keeps: by digest, and of segments whose file gc has removed. */
GHashTable *segment_table_new(void);
GPtrArray *segment_list_new(void);

/* Opened once and remembered. The footer is read and checked, the bytes of frames are not. */
bool segment_get(Store *store, const Digest *digest, Segment **ret, GError **error);
/* Forgets an open segment whose file gc has removed; users that still hold it can go on reading. */
void segment_forget(Store *store, const Digest *digest);
/* The file by its own name as it stands, for who copies it; -1 with errno, ENOENT where it was repacked. */
int segment_open_file(Store *store, const Digest *digest);
const Digest *segment_digest(const Segment *segment);
BlockClass segment_class(const Segment *segment);
uint32_t segment_frames(const Segment *segment);
uint64_t segment_file_size(const Segment *segment);
const SegmentEntry *segment_entry(const Segment *segment, uint32_t frame);

/* Hashes of one frame, out of a bounded cache. */
bool segment_hashes(Segment *segment, uint32_t frame, Digest ret[FRAME_MAX_BLOCKS], unsigned *ret_blocks, GError **error);

/* Copies [from, from+size) of the frame's plain bytes; the frame is verified when it enters the cache. */
bool segment_read(Segment *segment, uint32_t frame, uint32_t from, uint32_t size, void *to, GError **error);

/* The same past the cache where it is the whole frame: for who reads every frame once. */
bool segment_read_once(Segment *segment, uint32_t frame, uint32_t from, uint32_t size, void *to, GError **error);

/* The frame as it is stored, @stored (FRAME_MAX_STORED bytes), its head, and its plain bytes, which are verified. Fails where the segment was repacked. */
bool segment_stored(Segment *segment, uint32_t frame, uint8_t *stored, FrameHead *ret_head, uint8_t *plain, GError **error);

/* Reads a frame past the cache and verifies it: for fsck. */
bool segment_verify_frame(Segment *segment, uint32_t frame, GError **error);

/*
 * A segment that gc repacked: its name is good for reading as before, its blocks are elsewhere (segment-moved.h). It has no entries and
 * a file size of 0; hashes of what nothing needed are none. A segment may become one while it is open.
 */
bool segment_is_moved(const Segment *segment);
/* Is there a block to read at @position? */
bool segment_holds(Segment *segment, uint32_t position);
/* Of a segment that may have moved: the segment whose file has the block now, and where. */
bool segment_locate(Segment *segment, uint32_t position, Segment **ret, uint32_t *ret_position, GError **error);

/* --- writing --- */
typedef struct SegmentFile {
    int dirfd; /* borrowed: the process's tmp folder */
    int fd;
    char *name;
    BlockClass class;
    uint64_t size;
    GArray *entries; /* of SegmentEntry */
    DigestStream *stream;
    Digest digest; /* when finished */
    bool finished;
} SegmentFile;

bool segment_file_new(int dirfd, char *name /* taken */, BlockClass class, SegmentFile **ret, GError **error);
bool segment_file_append(SegmentFile *file, const uint8_t *frame, uint32_t size, unsigned blocks, uint8_t encoding, GError **error);
bool segment_file_finish(SegmentFile *file, GError **error); /* footer and digest; starts writing back, does not wait */
bool segment_file_sync(SegmentFile *file, GError **error);
void segment_file_free(SegmentFile *file); /* removes the file unless it was renamed away and @name freed */

#endif
