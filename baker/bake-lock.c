/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lock files are plain JSON, sorted, so that they can live beside a template in version control and read well in a diff.
 */
#include "baker/bake-lock.h"

#include "base/error.h"
#include "base/file.h"

#include <fcntl.h>

#define LOCK_MAX ((size_t)64 << 20)

static bool parse(const void *text, size_t size, const char *path, json_t **ret, GError **error)
{
    g_autoptr(json_t) lock = NULL;
    int64_t version;

    if (!json_parse(text, size, LOCK_MAX, path, &lock, error))
        return false;
    if (!json_is_object(lock) || !json_get_int(lock, "kiln_lock", 0, &version, NULL) || version != 1 ||
        !json_is_object(json_object_get(lock, "builds")))
        return fail(error, "'%s' is no lock file of this version of kiln; make one with --lock", path);
    *ret = g_steal_pointer(&lock);
    return true;
}

static bool read_lock(const char *path, json_t **ret, GError **error)
{
    g_autoptr(GBytes) text = NULL;

    return file_load(AT_FDCWD, path, LOCK_MAX, &text, error) &&
           parse(g_bytes_get_data(text, NULL), g_bytes_get_size(text), path, ret, error);
}

static bool find_build(const json_t *lock, const char *path, const char *build, json_t **ret, GError **error)
{
    json_t *transactions = json_object_get(json_object_get(lock, "builds"), build);

    if (!json_is_object(transactions))
        return fail(error, "lock file '%s' says nothing of build '%s'; make it again with --lock", path, build);
    *ret = json_incref(transactions);
    return true;
}

bool bake_lock_parse(const void *text, size_t size, const char *name, const char *build, json_t **ret, GError **error)
{
    g_autoptr(json_t) lock = NULL;

    return parse(text, size, name, &lock, error) && find_build(lock, name, build, ret, error);
}

bool bake_lock_load(const char *path, const char *build, json_t **ret, GError **error)
{
    g_autoptr(json_t) lock = NULL;

    return read_lock(path, &lock, error) && find_build(lock, path, build, ret, error);
}

static char *place(unsigned position, const char *output /* NULL: of all branches */)
{
    return output ? g_strdup_printf("%u.%s", position, output) : g_strdup_printf("%u", position);
}

void bake_lock_add(json_t *transactions, unsigned position, const char *output, json_t *transaction)
{
    g_autofree char *common = place(position, NULL), *own = place(position, output);
    const json_t *other = json_object_get(transactions, common);

    json_object_set(transactions, other && !json_equal(other, transaction) ? own : common, transaction);
}

json_t *bake_lock_find(const json_t *transactions, unsigned position, const char *output)
{
    g_autofree char *common = place(position, NULL), *own = place(position, output);
    json_t *found = json_object_get(transactions, own);

    return found ? found : json_object_get(transactions, common);
}

bool bake_lock_save(const char *path, const char *build, json_t *transactions, GError **error)
{
    g_autoptr(json_t) lock = NULL;
    g_autofree char *text = NULL;
    static GMutex one_at_a_time; /* builds of a batch share the file */
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&one_at_a_time);

    if (g_file_test(path, G_FILE_TEST_EXISTS) && !read_lock(path, &lock, error))
        return false;
    if (!lock)
        lock = json_pack("{s:i, s:{}}", "kiln_lock", 1, "builds");
    json_object_set(json_object_get(lock, "builds"), build, transactions);
    text = json_dumps(lock, JSON_SORT_KEYS | JSON_INDENT(2));
    return text && file_replace(AT_FDCWD, path, text, strlen(text), 0644, FILE_SYNC_NO, error);
}
