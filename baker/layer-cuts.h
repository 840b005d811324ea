/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which entry of a root goes into which layer of a container image.
 *
 * By rule, bottom first:
 *
 *   base [N of 6]      what the source's packages own, as the source had it; packages of one origin are in one layer
 *   packages [N of 4]  what packages own and the bake brought or changed
 *   system             package managers' own records, what no package owns of the source, every folder in its final form, deletions
 *   files              everything else that the bake brought or changed
 *
 * Which of the numbered layers a package is in follows from the name of its source package alone, and folders have no time there: a new
 * version of one package, made by the same template, changes one of them and "system". Small roots have one base, one packages layer.
 *
 * On a parent: one layer with what changed.
 *
 * Why a new root of a bootstrap source is never cut on the set that the name had before: the cut would depend on what a store has seen, so that
 * equal inputs would give an image ID in one store and another one in the next, and `kiln verify` could prove nothing. A night that shall push
 * one small layer starts `from = "image:..."`, as `kiln nightly` does: there the parent is an input, and part of the key.
 */
#ifndef KILN_BAKER_LAYER_CUTS_H
#define KILN_BAKER_LAYER_CUTS_H

#include "store/store.h"

#define LAYER_CHANGES "changes" /* title of a layer on a parent */

typedef struct LayerCut {
    char *title;           /* in the config's history */
    Tree *tree;            /* entries come from it, contents from @files; both borrowed */
    StoreMap *files;
    GHashTable *paths;     /* set of paths of @tree that go in */
    GHashTable *whiteouts; /* folder -> GPtrArray of paths that disappear from it */
    bool steady;           /* folders are written without their times: a later layer says those */
} LayerCut;
void layer_cut_free(LayerCut *cut);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LayerCut, layer_cut_free)

/* A root, and path -> origin of what packages own in it (layer_origins()). */
typedef struct LayerRoot {
    Tree *tree;
    StoreMap *files;
    GHashTable *origins;
} LayerRoot;

/* *ret: path -> name of the source package, of @tree. Free with g_hash_table_unref. */
bool layer_origins(Tree *tree, StoreMap *files, GHashTable **ret, GError **error);

/* Appends LayerCut* to @cuts, only such as hold something. @base may be NULL. */
void layer_cuts_by_rule(const LayerRoot *base, const LayerRoot *root, GPtrArray *cuts);

/* Appends what makes @root of @from, or nothing when they are equal. */
void layer_cut_changes(Tree *from, const LayerRoot *root, GPtrArray *cuts);

bool layer_cut_write(const LayerCut *cut, LayerWriter *writer, GError **error);

#endif
