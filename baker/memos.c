/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limits of memos.h as rules for gc. A quarter of a year: an image that is baked once a quarter still finds its source.
 */
#include "baker/memos.h"

const char *const memo_shared[] = {"apt-sources:", "resolve:", "bootstrap-resolved:", "bootstrap-root:", MEMO_DISK_ROOT, NULL};

void memo_rules(uint64_t package_quota, StoreMemoRule ret[MEMO_RULES])
{
    ret[0] = (StoreMemoRule){.prefix = "", .max_age = MEMO_AGE_MAX};
    ret[1] = (StoreMemoRule){.prefix = MEMO_PACKAGE, .quota = package_quota};
}
