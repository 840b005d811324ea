/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of package resolution share: what is read from a guest (resolve-guest.c), apt in its private folder
 * (resolve-apt.c), and the front that puts both together (resolve.c).
 */
#ifndef KILN_BAKER_RESOLVE_PARTS_H
#define KILN_BAKER_RESOLVE_PARTS_H

#include "baker/resolve.h"
#include "baker/source-apt.h"

typedef struct ResolveFile {
    char *name; /* without folder */
    GBytes *bytes;
} ResolveFile;

/* An installed package of dpkg's status. */
typedef struct ResolvePackage {
    char *name, *version, *architecture;
    bool held;
} ResolvePackage;

typedef struct ResolveGuest {
    GBytes *status;
    GPtrArray *installed;     /* of ResolvePackage* */
    GHashTable *automatic;    /* names that extended_states calls automatic */
    char **architectures;     /* native first */
    GPtrArray *entries;       /* of AptEntry*: http and https only */
    GHashTable *keys;         /* path in the guest -> GBytes */
    GPtrArray *trusted;       /* of ResolveFile*: keys that count for entries without signed-by */
    GPtrArray *preferences;   /* of ResolveFile* */
} ResolveGuest;

/* *ret is NULL (with true) when the root has no dpkg. Left-out sources are said by log_verbose. */
bool resolve_guest_read(const ResolveRequest *request, ResolveGuest **ret, GError **error);
void resolve_guest_free(ResolveGuest *guest);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ResolveGuest, resolve_guest_free)
/* What is handed to apt as an argument or compared: nothing but a package's letters, and no dash in front. */
bool resolve_plain_word(const char *text);
const ResolvePackage *resolve_guest_find(const ResolveGuest *guest, const char *name /* "x" or "x:arch" */);

/* Lock files are edited and merged by people: what is no transaction must not reach the guest. */
bool resolve_lock_is_sound(const json_t *locked);

/* One line of what apt would do. */
typedef struct AptOperation {
    char kind;      /* 'i' unpack, 'c' configure, 'r' remove, 'p' purge */
    char *name;     /* as apt names it: "x" or, for a foreign architecture, "x:i386" */
    char *from;     /* installed version, 'i', 'r', 'p'; NULL: not installed */
    char *version, *architecture; /* 'i' */
    bool security;  /* comes from a suite that ends in -security */
} AptOperation;
void apt_operation_free(AptOperation *operation);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AptOperation, apt_operation_free)
/* A line of `apt-get -s`; NULL when it tells of no operation, or of one whose words could be taken for something else. */
AptOperation *apt_operation_parse(const char *line);

/* One file that apt would fetch. */
typedef struct AptUri {
    char *uri, *name, *version, *architecture;
    Digest sha256;
    uint64_t size;
} AptUri;
void apt_uri_free(AptUri *uri);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AptUri, apt_uri_free)
/* A line of `apt-get --print-uris`; NULL when it tells of no package with its SHA-256. */
AptUri *apt_uri_parse(const char *line);

/* Where the folders below are; the caller frees it. */
char *apt_cache_folder(void);

/* apt's private folder for one set of sources, locked while it is open. */
typedef struct AptSpace AptSpace;
bool apt_space_open(const ResolveRequest *request, const ResolveGuest *guest, AptSpace **ret, GError **error);
void apt_space_close(AptSpace *space);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AptSpace, apt_space_close)
/* Fetches the indexes unless the last ones were fetched for the same release files. @offline: only what is there. */
bool apt_space_update(AptSpace *space, const json_t *releases, bool offline, GError **error);
/* A file of pins that prefers suites ending in -security; counts where a word "-oDir::Etc::preferences=" names it. */
#define APT_SECURITY_PINS "security.pref"
/* @words: verb and packages, NULL-terminated. */
bool apt_space_simulate(AptSpace *space, const char *const *words, GPtrArray **ret /* of AptOperation* */, GError **error);
/* @ret_growth: bytes that the root grows by, as apt rounds them; negative when it shrinks. */
bool apt_space_uris(AptSpace *space, const char *const *words, GPtrArray **ret /* of AptUri* */, int64_t *ret_growth, GError **error);
/* The line of `apt-get --print-uris` that tells it; false when it is another one. */
bool apt_growth_parse(const char *line, int64_t *ret);

#endif
