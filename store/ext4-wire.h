/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kiln and its confined reader of ext4 say to each other, over one socket. Both run on this machine and come from one build: numbers
 * are the machine's, structs go as they are.
 *
 *     kiln                                      kiln-ext4
 *     Ext4Command [path] ------------------------>
 *                           <------------------  Ext4Head payload ...     until DONE or FAILED
 *     u32 ok [bytes] <-- READ ---------------->  at any time; the reader waits for it
 *
 *     command   answer
 *     OPEN      INFO, DONE                                           first, once
 *     WALK      { FOLDER { RUNS* INLINE? XATTR* ENTRY | LINK }* }*   folders are numbered as their ENTRYs come; 0 is the root, the first ENTRY
 *     FIND      RUNS* INLINE? ENTRY, or nothing                      links are followed
 *     LIST      NAME*
 *     JOURNAL   NUMBERS* (its blocks, in order)
 *     CLEAN     RANGES* (bytes of the file system that a publisher must make zero)
 *
 * RUNS, INLINE and XATTR speak of the ENTRY that comes next. The reader is what the file system's author may have made it: kiln checks
 * every word of it.
 */
#ifndef KILN_STORE_EXT4_WIRE_H
#define KILN_STORE_EXT4_WIRE_H

#include <stdint.h>

#define EXT4_WIRE_MAX ((uint32_t)1 << 20) /* bytes of one message */
#define EXT4_READ_MAX ((uint32_t)128 << 10)
#define EXT4_PATH_MAX 4095u
#define EXT4_MEMORY_MAX ((uint64_t)1 << 30)
#define EXT4_SECONDS_MAX 120u /* of processor time */

enum Ext4Op { EXT4_OPEN = 1, EXT4_WALK, EXT4_FIND, EXT4_LIST, EXT4_JOURNAL, EXT4_CLEAN };

typedef struct Ext4Command {
    uint32_t op;
    uint32_t arg;  /* OPEN: 1 though a journal waits */
    uint64_t size; /* OPEN: of the file system's place; else bytes of the path that follows */
} Ext4Command;

enum Ext4Word {
    EXT4_READ = 1, /* Ext4Read */
    EXT4_INFO,     /* Ext4Info */
    EXT4_FOLDER,   /* u32 number */
    EXT4_RUNS,     /* Ext4Run ... */
    EXT4_INLINE,   /* bytes */
    EXT4_XATTR,    /* name, NUL, value */
    EXT4_ENTRY,    /* Ext4Entry, name, target */
    EXT4_LINK,     /* u32 inode, name */
    EXT4_NAME,     /* name */
    EXT4_NUMBERS,  /* u64 ... */
    EXT4_RANGES,   /* Ext4Range ... */
    EXT4_DONE,     /* nothing */
    EXT4_FAILED,   /* a sentence */
};

typedef struct Ext4Head {
    uint32_t word, size;
} Ext4Head;

typedef struct Ext4Read {
    uint64_t at;
    uint64_t size;
} Ext4Read;

typedef struct Ext4Info {
    uint64_t blocks, first_block, inodes;
    uint32_t block_size, first_inode;
} Ext4Info;

/* Blocks [logical, logical + count) of a file lie at @physical; ascending. */
typedef struct Ext4Run {
    uint64_t logical, physical, count;
} Ext4Run;

typedef struct Ext4Range {
    uint64_t from, to;
} Ext4Range;

typedef struct Ext4Entry {
    uint64_t size;
    int64_t mtime;
    uint32_t ino, uid, gid, major, minor;
    uint16_t mode, links; /* mode as in the inode, with the type */
    uint16_t name_size, target_size;
    uint32_t is_inline;
} Ext4Entry;

#endif
