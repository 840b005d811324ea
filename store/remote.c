/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all remotes have in common: keys are looked at before a member sees them, bytes before the caller does.
 */
#include "store/remote.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"

#include <string.h>
#include <sys/stat.h>

struct Remote {
    const RemoteOps *ops;
    void *self;
    char *location;
    GMutex lock;
    RemoteTraffic traffic;
};

/* --- opening --- */

static const RemoteOps *find_ops(const char *location)
{
    const char *colon = strchr(location, ':');

    for (const RemoteOps *const *ops = remote_table; colon && *ops; ops++)
        if (strlen((*ops)->scheme) == (size_t)(colon - location) && g_str_has_prefix(location, (*ops)->scheme))
            return *ops;
    return NULL;
}

bool remote_is_location(const char *text)
{
    return find_ops(text) != NULL;
}

static bool unknown_remote(const char *location, GError **error)
{
    g_autoptr(GString) list = g_string_new(NULL);

    for (const RemoteOps *const *ops = remote_table; *ops; ops++)
        g_string_append_printf(list, "%s%s", list->len ? " or " : "", (*ops)->example);
    return fail_code(error, KILN_ERROR_USAGE, "'%s' is no remote: it looks like %s", location, list->str);
}

bool remote_open(const char *location, const RemoteOptions *options, Remote **ret, GError **error)
{
    const RemoteOps *ops = find_ops(location);
    Remote *remote;

    if (!ops)
        return unknown_remote(location, error);
    remote = g_new0(Remote, 1);
    remote->ops = ops;
    remote->location = g_strdup(location);
    g_mutex_init(&remote->lock);
    if (!ops->open(location, options, &remote->self, error)) {
        remote_close(remote);
        return false;
    }
    *ret = remote;
    return true;
}

void remote_close(Remote *remote)
{
    if (!remote)
        return;
    if (remote->self)
        remote->ops->close(remote->self);
    g_mutex_clear(&remote->lock);
    g_free(remote->location);
    g_free(remote);
}

const char *remote_location(const Remote *remote)
{
    return remote->location;
}

void remote_traffic(Remote *remote, RemoteTraffic *ret)
{
    AUTO_LOCK(&remote->lock);

    *ret = remote->traffic;
}

void remote_entry_free(RemoteEntry *entry)
{
    if (entry)
        g_free(entry->key);
    g_free(entry);
}

RemoteEntry *remote_entry_new(const char *key, uint64_t size, int64_t changed)
{
    RemoteEntry *entry = g_new0(RemoteEntry, 1);

    *entry = (RemoteEntry){.key = g_strdup(key), .size = size, .changed = changed};
    return entry;
}

/* --- keys --- */

static bool key_is_fit(const char *key, bool prefix)
{
    char last = '/';

    if (strlen(key) > REMOTE_KEY_MAX)
        return false;
    for (const char *c = key; *c; last = *c++)
        if (!g_ascii_isalnum(*c) && !(*c == '/' && last != '/') && !(*c == '.' && last != '/') && !strchr("_-", *c))
            return false;
    return prefix || (*key && last != '/');
}

static bool check_key(const Remote *remote, const char *key, bool prefix, GError **error)
{
    return key_is_fit(key, prefix) || fail(error, "%s: '%s' is not fit for a key", remote->location, key);
}

char *remote_digest_key(const char *prefix, const Digest *digest)
{
    char hex[DIGEST_HEX_SIZE];

    digest_to_hex(digest, hex);
    return g_strdup_printf("%s/%.2s/%s", prefix, hex, hex);
}

/* --- getting --- */

typedef struct Getting {
    Remote *remote;
    const char *key;
    DigestStream *stream;
    GByteArray *bytes; /* else into @fd */
    int fd;
    uint64_t size, max;
} Getting;

static bool take(const void *data, size_t size, void *arg, GError **error)
{
    Getting *g = arg;

    if (!interrupt_check(error))
        return false;
    if (size > g->max - g->size)
        return fail(error, "%s: object '%s' is larger than the %" G_GUINT64_FORMAT " bytes expected", g->remote->location, g->key, g->max);
    if (g->stream)
        digest_stream_update(g->stream, data, size);
    if (g->bytes)
        g_byte_array_append(g->bytes, data, (guint)size);
    else if (!file_pwrite_full(g->fd, data, size, g->size, "a fetched object", error))
        return false;
    g->size += size;
    g->remote->traffic.fetched += size;
    return true;
}

/* The lock is held. */
static bool fetch(Getting *g, const Digest *expected, GError **error)
{
    g_autoptr(DigestStream) stream = expected ? digest_stream_new() : NULL;
    Remote *remote = g->remote;
    Digest have;

    if (!check_key(remote, g->key, false, error))
        return false;
    g->stream = stream;
    remote->traffic.requests++;
    if (!remote->ops->get(remote->self, g->key, 0, UINT64_MAX, take, g, error))
        return false;
    trace("store.remote", "%s: got %s, %" G_GUINT64_FORMAT " bytes", remote->location, g->key, g->size);
    if (!expected)
        return true;
    digest_stream_final(stream, &have);
    return digest_equal(&have, expected) ||
           fail(error, "%s: object '%s' has other bytes than its name says; nothing of it was taken over", remote->location, g->key);
}

bool remote_get(Remote *remote, const char *key, const Digest *expected, size_t max, GBytes **ret, GError **error)
{
    AUTO_LOCK(&remote->lock);
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    Getting g = {.remote = remote, .key = key, .bytes = bytes, .fd = -1, .max = MIN(max, (size_t)1 << 30)};

    if (!fetch(&g, expected, error))
        return false;
    *ret = g_byte_array_free_to_bytes(g_steal_pointer(&bytes));
    return true;
}

bool remote_get_file(Remote *remote, const char *key, const Digest *expected, uint64_t max, int fd, uint64_t *ret_size, GError **error)
{
    AUTO_LOCK(&remote->lock);
    Getting g = {.remote = remote, .key = key, .fd = fd, .max = max};

    if (!fetch(&g, expected, error))
        return false;
    *ret_size = g.size;
    return true;
}

bool remote_get_range(Remote *remote, const char *key, uint64_t offset, size_t size, GBytes **ret, GError **error)
{
    AUTO_LOCK(&remote->lock);
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    Getting g = {.remote = remote, .key = key, .bytes = bytes, .fd = -1, .max = size};

    if (!check_key(remote, key, false, error))
        return false;
    remote->traffic.requests++;
    if (size > 0 && !remote->ops->get(remote->self, key, offset, size, take, &g, error))
        return false;
    if (g.size != size)
        return fail(error, "%s: object '%s' ends before byte %" G_GUINT64_FORMAT, remote->location, key, offset + size);
    *ret = g_byte_array_free_to_bytes(g_steal_pointer(&bytes));
    return true;
}

/* --- putting --- */

static bool put_body(Remote *remote, const char *key, const RemoteBody *body, bool if_absent, bool *ret_new, GError **error)
{
    AUTO_LOCK(&remote->lock);
    bool added = false;

    if (!check_key(remote, key, false, error))
        return false;
    remote->traffic.requests++;
    if (!interrupt_check(error) || !remote->ops->put(remote->self, key, body, if_absent, &added, error))
        return false;
    trace("store.remote", "%s: %s %s, %" G_GUINT64_FORMAT " bytes", remote->location, added ? "put" : "has", key, body->size);
    remote->traffic.sent += added ? body->size : 0;
    if (ret_new)
        *ret_new = added;
    return true;
}

bool remote_put(Remote *remote, const char *key, const void *data, size_t size, bool if_absent, bool *ret_new, GError **error)
{
    RemoteBody body = {.fd = -1, .data = data, .size = size};

    digest_of(data, size, &body.digest);
    return put_body(remote, key, &body, if_absent, ret_new, error);
}

bool remote_put_file(Remote *remote, const char *key, int fd, const Digest *digest, bool if_absent, bool *ret_new, GError **error)
{
    RemoteBody body = {.fd = fd, .digest = *digest};
    struct stat st;

    if (fstat(fd, &st) < 0)
        return fail_errno(error, "look at a file for '%s'", remote->location);
    body.size = (uint64_t)st.st_size;
    return put_body(remote, key, &body, if_absent, ret_new, error);
}

/* --- the rest --- */

bool remote_head(Remote *remote, const char *key, bool *ret_there, uint64_t *ret_size, GError **error)
{
    AUTO_LOCK(&remote->lock);
    uint64_t size = 0;

    if (!check_key(remote, key, false, error))
        return false;
    remote->traffic.requests++;
    if (!remote->ops->head(remote->self, key, ret_there, &size, error))
        return false;
    if (ret_size)
        *ret_size = size;
    return true;
}

/* A member that does not go on would keep us here for ever. */
static bool check_page(const Remote *remote, const GPtrArray *list, guint from, GError **error)
{
    for (guint i = from; i < list->len; i++) {
        const RemoteEntry *entry = list->pdata[i];

        if (!key_is_fit(entry->key, false))
            return fail(error, "%s: has an object that is none of kiln's: use a folder or a prefix of its own", remote->location);
        if (i > 0 && strcmp(((const RemoteEntry *)list->pdata[i - 1])->key, entry->key) >= 0)
            return fail(error, "%s: lists its objects out of order", remote->location);
    }
    return true;
}

bool remote_list(Remote *remote, const char *prefix, size_t max, GPtrArray **ret, GError **error)
{
    AUTO_LOCK(&remote->lock);
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)remote_entry_free);
    bool more = true;

    if (!check_key(remote, prefix, true, error))
        return false;
    while (more) {
        guint from = list->len;
        const char *after = from ? ((const RemoteEntry *)list->pdata[from - 1])->key : NULL;

        remote->traffic.requests++;
        if (!interrupt_check(error) || !remote->ops->list(remote->self, prefix, after, list, &more, error) ||
            !check_page(remote, list, from, error))
            return false;
        if (list->len > max)
            return fail(error, "%s: has more than %zu objects under '%s'", remote->location, max, prefix);
        more = more && list->len > from;
    }
    *ret = g_steal_pointer(&list);
    return true;
}

bool remote_remove(Remote *remote, const char *key, GError **error)
{
    AUTO_LOCK(&remote->lock);

    remote->traffic.requests++;
    return check_key(remote, key, false, error) && remote->ops->remove(remote->self, key, error);
}
