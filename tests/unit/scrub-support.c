/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scrub-support.h"

#include "tests/unit/oci-image-support.h"
#include "tests/unit/store-support.h"
#include "tests/unit/tree-support.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t fill_seed;

static void add_noise(TreeBuilder *builder, const char *path, size_t size, uint64_t seed)
{
    g_autofree uint8_t *bytes = g_malloc(size);

    test_noise(bytes, size, seed);
    support_add_file(builder, path, bytes, size);
}

/* One that does not compress, one that does, and two names with one content. */
static void fill_tree(TreeBuilder *builder)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (unsigned i = 0; i < 6000; i++)
        g_string_append_printf(text, "line %u of %" G_GUINT64_FORMAT "\n", i, fill_seed);
    add_noise(builder, "usr/lib/noise", 200 << 10, fill_seed * 10 + 1);
    add_noise(builder, "etc/one", 16 << 10, fill_seed * 10 + 2);
    add_noise(builder, "etc/two", 16 << 10, fill_seed * 10 + 2);
    support_add_file(builder, "usr/share/text", text->str, text->len);
}

static void make_disk(Store *store, uint64_t seed, StoreImage *image, Digest *ret_content)
{
    g_autoptr(StoreWriter) writer = NULL, disk_writer = NULL;
    g_autoptr(TreeBuilder) builder = NULL;
    g_autoptr(Tree) tree = NULL;
    g_autoptr(MapWriter) space = NULL, disk = NULL;
    g_autoptr(StoreMap) files = NULL;
    g_autofree uint8_t *head = g_malloc(1 << 20);
    MapResult result;
    uint64_t size;

    fill_seed = seed;
    test_noise(head, 1 << 20, seed * 10 + 3);
    g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &writer, NULL) && tree_builder_new(writer, &builder, NULL));
    fill_tree(builder);
    g_assert_true(tree_builder_finish(builder, &tree, &space, NULL) && store_writer_commit(writer, NULL) &&
                  tree_stored_result(store, tree, space, &image->tree, NULL) && store_map_open(store, &image->tree.files, &files, NULL));
    size = store_map_size(files) / STORE_BLOCK_SIZE * STORE_BLOCK_SIZE;
    g_assert_true(store_writer_open(store, BLOCK_PUBLIC, &disk_writer, NULL) && map_writer_new(disk_writer, size + (1 << 20), NULL, &disk, NULL) &&
                  map_writer_write(disk, 0, head, 1 << 20, NULL) && map_writer_ref(disk, 1 << 20, files, 0, size, NULL) &&
                  map_writer_finish(disk, NULL) && store_writer_commit(disk_writer, NULL));
    map_writer_result(disk, &result);
    image->map = result.digest;
    *ret_content = result.content;
    image->size = result.size;
}

void scrub_publish(Store *store, const char *name, uint64_t seed)
{
    g_autoptr(StoreImage) image = store_image_new("disk", name), box = NULL;
    g_autofree char *config = NULL, *box_name = g_strconcat(name, "-box", NULL);
    char content[DIGEST_OCI_SIZE];
    g_autoptr(GHashTable) inputs = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(json_t) provenance = json_pack("{s:i}", "seed", (int)seed);
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    StoreSet set = {.name = name, .images = images, .inputs = inputs, .provenance = provenance};
    Digest blob;

    make_disk(store, seed, image, &blob);
    config = g_strdup_printf("{\"content\":\"%s\",\"name\":\"%s\"}", digest_to_oci(&blob, content), name);
    g_assert_true(store_blob_put(store, config, strlen(config), &image->id, NULL) && store_blob_put(store, "input", 5, &blob, NULL));
    g_ptr_array_add(images, image);
    g_hash_table_insert(inputs, (char *)"template", &blob);
    store_publish(store, &set, &error);
    g_assert_no_error(error);
    box = oci_image_make(store, box_name, NULL, name, NULL);
}

/* --- files --- */

static void add_files(const char *store, const char *below, GPtrArray *to)
{
    static const char *const leave[] = {"index", "tmp", "groups", "lock", "catalog.db-wal", "catalog.db-shm", "state.db-wal", "state.db-shm", "damaged", NULL};
    g_autofree char *folder = g_build_filename(store, below, NULL);
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;

    g_assert_nonnull(dir);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = *below ? g_build_filename(below, name, NULL) : g_strdup(name), *whole = g_build_filename(store, path, NULL);

        if (g_strv_contains(leave, path) || g_str_has_prefix(path, "reserve"))
            continue;
        if (g_file_test(whole, G_FILE_TEST_IS_DIR))
            add_files(store, path, to);
        else if (scrub_size(store, path) > 0)
            g_ptr_array_add(to, g_steal_pointer(&path));
    }
    g_dir_close(dir);
}

static int by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

GPtrArray *scrub_files(const char *store)
{
    GPtrArray *files = g_ptr_array_new_with_free_func(g_free);

    add_files(store, "", files);
    g_ptr_array_sort(files, by_name);
    return files;
}

uint64_t scrub_size(const char *store, const char *file)
{
    g_autofree char *path = g_build_filename(store, file, NULL);
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    return (uint64_t)st.st_size;
}

void scrub_flip(const char *store, const char *file, uint64_t bit)
{
    g_autofree char *path = g_build_filename(store, file, NULL);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pread(fd, &byte, 1, (off_t)(bit / 8)), ==, 1);
    byte ^= (uint8_t)(1u << bit % 8);
    g_assert_cmpint(pwrite(fd, &byte, 1, (off_t)(bit / 8)), ==, 1);
    close(fd);
}

void scrub_copy(const char *from, const char *to)
{
    g_assert_cmpint(support_sh("rm -rf '%s' && cp -a '%s' '%s'", to, from, to), ==, 0);
}

bool scrub_says(const GPtrArray *sentences, const char *text)
{
    for (guint i = 0; sentences && i < sentences->len; i++)
        if (strstr(sentences->pdata[i], text))
            return true;
    return false;
}

static void run_sql(sqlite3 *db, const char *sql)
{
    char *why = NULL;

    (void)sqlite3_exec(db, sql, NULL, NULL, &why);
    g_assert_cmpstr(why, ==, NULL);
}

static int run_each(void *db, int columns, char **values, char **names)
{
    run_sql(db, values[0]);
    return 0;
}

/* Runs what the query gives, statement by statement. */
static void run_all(sqlite3 *db, sqlite3 *to, const char *query)
{
    g_assert_cmpint(sqlite3_exec(db, query, run_each, to, NULL), ==, SQLITE_OK);
}

void scrub_copy_tables(const char *from, const char *to)
{
    g_autofree char *attach = g_strdup_printf("ATTACH '%s' AS old", from);
    sqlite3 *old, *db;

    g_assert_cmpint(sqlite3_open(from, &old), ==, SQLITE_OK);
    g_assert_cmpint(sqlite3_open(to, &db), ==, SQLITE_OK);
    run_sql(db, "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL");
    run_all(old, db, "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
    run_sql(db, attach);
    run_all(old, db, "SELECT 'INSERT INTO main.' || name || ' SELECT * FROM old.' || name FROM sqlite_schema WHERE type = 'table'"
                     " AND name NOT LIKE 'sqlite_%' UNION ALL SELECT 'DELETE FROM main.sqlite_sequence' UNION ALL"
                     " SELECT 'INSERT INTO main.sqlite_sequence SELECT * FROM old.sqlite_sequence'");
    run_all(old, db, "SELECT sql FROM sqlite_schema WHERE type != 'table' AND sql IS NOT NULL");
    run_all(old, db, "SELECT 'PRAGMA main.user_version = ' || user_version FROM pragma_user_version");
    run_all(old, db, "SELECT 'PRAGMA main.application_id = ' || application_id FROM pragma_application_id");
    sqlite3_close(old);
    sqlite3_close(db);
}
