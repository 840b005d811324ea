/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes on disk. All numbers are little-endian. In words: kiln-store(5).
 *
 * A change here needs a new number below, a reader for the old bytes and, in
 * tests/data/, the old bytes themselves.
 *
 * STORE/
 *   format          text, "kiln-store 1\n"
 *   lock            shared flock by everybody, exclusive by recovery
 *   state.db        SQLite: names; precious
 *   catalog.db      SQLite: segments, frames, maps, images ...; can be made again
 *   segments/ab/    segments, named by the SHA-256 of their bytes; with ".moved"
 *                   behind the name where the blocks went (segment-moved.h)
 *   blobs/ab/       whole files, named by the SHA-256 of their plain bytes; with
 *                   ".zst" behind the name the file is one zstd frame of those bytes
 *   ledger/head     which blobs state.db was written out to: see store/ledger.h
 *   cache/          layers made for an export, may be deleted at any time
 *   index/blocks    block index: derived, may be deleted at any time
 *   tmp/ID/         what one process is writing; tmp/ID/owner is locked while it lives
 *
 * Segment: a zstd stream from end to end (what is not payload sits in skippable
 * frames), so that `zstd -d` gives the concatenated blocks of all frames.
 *
 *   +--------------------------------------------------------------+
 *   | skippable 0x184D2A50, 16 | "KILNSEG1" | version 4 | class 4  |
 *   +--------------------------------------------------------------+
 *   | frame 0 | frame 1 | ...                                      |
 *   +--------------------------------------------------------------+
 *   | skippable 0x184D2A52, n | entry 0 | entry 1 ... | tail       |
 *   +--------------------------------------------------------------+
 *   entry (16): offset of the frame 8 | stored length 4 | blocks 1 | encoding 1 | 0 0
 *   tail (24):  frames 4 | length of the whole footer 4 | check of the entries 8 | "KILNEND1"
 *
 * Frame: 1..32 blocks of 4 KiB.
 *
 *   +------------------------------------------------------------------------------------+
 *   | skippable 0x184D2A51, n | "KFR1" | encoding 1 | blocks 1 | engine 2 | payload len 4 |
 *   |                         | check 4 | SHA-256 of block 0 | block 1 | ...             |
 *   +------------------------------------------------------------------------------------+
 *   | payload: a zstd frame of blocks * 4096 bytes                                       |
 *   +------------------------------------------------------------------------------------+
 *   encoding 1: compressed.  encoding 2: a zstd frame with one raw block, so that the
 *   bytes stand at payload + 12 as they are. engine: libzstd's version number plus one, 0 where unknown; two frames of one engine
 *   with the same blocks have the same payload, which is all that it says. "check" is the start of a SHA-256 over
 *   what it covers (frame: the hashes; footer: the entries).
 *
 * Position: frame * 32 + block within one segment; a run of positions may go on
 * over frames that are full.
 *
 * Map (a blob): an ordered list of runs; what no run covers is zero.
 *
 *   "KILNMAP1" | version 4 | class 4 | size in bytes 8 | segments 4 | 0 4 | runs 8   (40 bytes)
 *   segments * SHA-256
 *   runs * (varint gap since the last run's end | varint blocks | varint segment |
 *           zigzag varint position minus the end of the last run's position)
 *
 * Block index: see store/index.c.
 */
#ifndef KILN_STORE_FORMAT_H
#define KILN_STORE_FORMAT_H

#define FORMAT_VERSION 1
#define FORMAT_TEXT "kiln-store 1\n"

#define ZSTD_SKIP_SEGMENT 0x184D2A50u
#define ZSTD_SKIP_FRAME 0x184D2A51u
#define ZSTD_SKIP_FOOTER 0x184D2A52u

#define SEGMENT_MAGIC "KILNSEG1"
#define SEGMENT_END_MAGIC "KILNEND1"
#define SEGMENT_VERSION 1
#define SEGMENT_HEADER_SIZE 24
#define SEGMENT_ENTRY_SIZE 16
#define SEGMENT_TAIL_SIZE 24
#define SEGMENT_TARGET_SIZE (64u << 20)
#define SEGMENT_MAX_SIZE (256u << 20) /* nothing larger is opened */
#define SEGMENT_MAX_FRAMES 65535

#define FRAME_MAGIC "KFR1"
#define FRAME_MAX_BLOCKS 32
#define FRAME_MAX_BYTES (FRAME_MAX_BLOCKS * 4096)
#define FRAME_FIXED_SIZE 24 /* skippable frame's own 8 bytes, then 16 */
#define FRAME_RAW_PREFIX 12 /* zstd frame and block header in front of raw bytes */
#define FRAME_MAX_STORED (FRAME_FIXED_SIZE + FRAME_MAX_BLOCKS * 32 + FRAME_MAX_BYTES + 4096)

#define FRAME_ZSTD 1
#define FRAME_RAW 2

#define MAP_MAGIC "KILNMAP1"
#define MAP_VERSION 1
#define MAP_HEADER_SIZE 40
#define MAP_MAX_SEGMENTS 65535
#define MAP_MAX_BLOB (512u << 20)
#define MAP_MAX_SIZE (1ull << 46) /* 64 TiB */

#endif
