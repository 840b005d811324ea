/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What baker remembers in the store as memos, class by class, and for how long that is worth its room: the store itself knows keys only.
 *
 *   package:SHA256      a fetched package; its blob
 *   disk-root:MAP       where the root is in a vendor's disk
 *   release:URL  apt-sources:CONTENT  resolve:KEY  bootstrap...:KEY  url:URL  file:PATH...  disk:FILE  oci:IMAGE  record:BUILD
 *   output...:PATH  host-step:KEY  shell-local:KEY  docker-import:FILE
 *   walk:1:MAP  walk-changes:1:BEFORE:AFTER  changes:1:BEFORE:AFTER:ROOT
 *
 * All of them can be had again.
 */
#ifndef KILN_BAKER_MEMOS_H
#define KILN_BAKER_MEMOS_H

#include "store/store.h"

#define MEMO_PACKAGE "package:"
#define MEMO_DISK_ROOT "disk-root:"
#define MEMO_PACKAGE_QUOTA ((uint64_t)4 << 30)

/* Seconds after which what nobody asked for goes: all memos, and the indexes of package sources (resolve.h). */
#define MEMO_AGE_MAX (90 * 86400.0)

/* What means the same on every machine, for a shared cache: NULL-terminated prefixes. Packages come from where they came from. */
extern const char *const memo_shared[];

#define MEMO_RULES 2
void memo_rules(uint64_t package_quota, StoreMemoRule ret[MEMO_RULES]);

#endif
