/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tar cut into what is kept as it stands (headers, padding, the end) and the contents of its members.
 *
 * Whatever the bytes are, the spans cover them from first to last, in order: what is no tar, or is none any more from some place on, is one
 * content from there. So nothing depends on understanding a tar but how well it is shared.
 *
 * Understood are ustar, pax and GNU headers, old and new sparse members (their stored bytes are the content), long names, and archives one behind
 * the other with zeroes between them.
 */
#ifndef KILN_STORE_TAR_WALK_H
#define KILN_STORE_TAR_WALK_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* @literal bytes, then @content bytes; either may be 0. false stops the walk. */
typedef bool TarSpanFn(uint64_t literal, uint64_t content, void *arg, GError **error);

bool tar_walk(const uint8_t *data, uint64_t size, TarSpanFn *fn, void *arg, GError **error);

#endif
