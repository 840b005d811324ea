/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a working disk shows: generations over a parent map.
 *
 *        active generation    all writes, zeroes and trims
 *        sealed generation    being captured; read-only; may be absent
 *        parent map           blocks of the store; zeroes behind its end
 *
 * A block comes from the topmost layer that has it. seal moves active one
 * down, rebase drops the sealed one because the parent now holds it, drop
 * forgets the active one. These three wait for calls that run and
 * keep new ones waiting, so none of them sees a write half done; everything else may run in parallel.
 */
#ifndef KILN_STORE_GENERATION_STACK_H
#define KILN_STORE_GENERATION_STACK_H

#include "store/generation.h"
#include "store/map.h"

typedef struct GenerationStack GenerationStack;

/* @parent may be NULL (all zeroes). Files go into @dir, which must exist and stay ours. */
bool generation_stack_open(StoreMap *parent, const char *dir, uint64_t size, GenerationStack **ret,
                           GError **error);
void generation_stack_close(GenerationStack *stack);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GenerationStack, generation_stack_close)

/* Any offset and size inside the disk. */
bool generation_stack_pread(GenerationStack *stack, void *buf, size_t size, uint64_t offset, GError **error);
bool generation_stack_pwrite(GenerationStack *stack, const void *buf, size_t size, uint64_t offset,
                             GError **error);
bool generation_stack_zero(GenerationStack *stack, uint64_t size, uint64_t offset, GError **error);
/* Only the whole blocks inside the range become zero; the rest keeps its bytes. */
bool generation_stack_trim(GenerationStack *stack, uint64_t size, uint64_t offset, GError **error);

/* Whether @offset lies in a hole that reads as zero, and where (at most @end) that may change. */
void generation_stack_extent(GenerationStack *stack, uint64_t offset, uint64_t end, uint64_t *ret_end,
                             bool *ret_zero);

/* *ret_number names the sealed generation for generation_open. Refused while another one is sealed. */
bool generation_stack_seal(GenerationStack *stack, unsigned *ret_number, GError **error);
/* Refers to @parent (NULL: all zeroes), which holds what parent and sealed generation showed together. */
void generation_stack_rebase(GenerationStack *stack, StoreMap *parent);
bool generation_stack_drop(GenerationStack *stack, GError **error);

#endif
