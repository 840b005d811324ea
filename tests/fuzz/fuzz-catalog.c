/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: a store whose databases were changed by somebody. First byte even: bytes of catalog.db or state.db are changed, checksums it has none. Odd: the rest is
 * SQL for rows, one statement a line, into databases that are whole. Everything that reads rows must end in order, with an error or without.
 */
#include "tests/fuzz/fuzz-store.h"

#include "store/block-index.h"

#include <sqlite3.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct KeptFile {
    char *name;
    GBytes *bytes;
} KeptFile;

static GArray *kept;
static const char *const names[2] = {"store/catalog.db", "store/state.db"};

static void publish(Store *store)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
    g_autoptr(json_t) provenance = json_pack("{s:[]}", "tests");
    g_autoptr(Tree) tree = tree_new();
    StoreImage *image = store_image_new("disk", "web");
    StoreSet set = {.name = "web", .images = images, .provenance = provenance};
    StorePromotion promotion = {.name = "web", .channel = "prod", .images = images};
    StoreState state = {.info = (char *)"{}"};

    g_ptr_array_add(images, image);
    image->map = fuzz_map(store, 40, 1);
    state.map = image->map;
    state.key = image->map;
    if (!store_blob_put(store, "{\"size\":163840}", 15, &image->id, NULL) || !store_publish(store, &set, NULL) ||
        !store_promote(store, &promotion, NULL, NULL) || !store_state_put(store, &state, NULL) ||
        !store_memo_put(store, "fetch:x", "1", &image->id, NULL, NULL))
        abort();
}

/* Everything in the store, to start from the same each time. */
static void keep_files(const char *folder)
{
    g_autofree char *path = fuzz_path(folder);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *inside = g_build_filename(folder, name, NULL), *full = fuzz_path(inside);
        KeptFile file = {.name = inside};

        if (g_file_test(full, G_FILE_TEST_IS_DIR)) {
            keep_files(inside);
            continue;
        }
        if (!file_load(AT_FDCWD, full, 16u << 20, &file.bytes, NULL))
            abort();
        file.name = g_steal_pointer(&inside);
        g_array_append_val(kept, file);
    }
}

static void make_store(void)
{
    Store *store = fuzz_open("store", STORE_OPEN_CREATE);

    publish(store);
    store_close(store);
    kept = g_array_new(FALSE, FALSE, sizeof(KeptFile));
    keep_files("store");
}

static void lay_out(int changed, const uint8_t *data, size_t size)
{
    g_autofree char *tmp = fuzz_path("store/tmp"), *store = fuzz_path("store");

    (void)file_remove_tree(AT_FDCWD, store, NULL);
    if (!file_make_dirs(tmp, 0755, NULL))
        abort();
    for (guint i = 0; i < kept->len; i++) {
        const KeptFile *one = &g_array_index(kept, KeptFile, i);
        gsize length = g_bytes_get_size(one->bytes);
        g_autofree uint8_t *file = g_memdup2(g_bytes_get_data(one->bytes, NULL), length);

        if (changed >= 0 && strcmp(one->name, names[changed]) == 0)
            fuzz_patch(file, length, data, size);
        fuzz_write(one->name, file, length);
    }
}

/* Rows, not what SQLite itself can be asked to do: no statement may run long or leave its file. */
static void change_rows(int which, const uint8_t *data, size_t size)
{
    static const char *const allowed[] = {"INSERT", "UPDATE", "DELETE", "REPLACE"};
    g_autofree char *path = fuzz_path(names[which]), *text = g_strndup((const char *)data, size);
    g_auto(GStrv) lines = g_strsplit(text, "\n", 50);
    sqlite3 *db;

    if (sqlite3_open(path, &db) != SQLITE_OK)
        abort();
    (void)sqlite3_limit(db, SQLITE_LIMIT_LENGTH, 100000);
    (void)sqlite3_exec(db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
    for (char **line = lines; *line; line++)
        for (size_t i = 0; i < G_N_ELEMENTS(allowed); i++)
            if (g_str_has_prefix(*line, allowed[i]) && !strcasestr(*line, "recursive"))
                (void)sqlite3_exec(db, *line, NULL, NULL, NULL);
    (void)sqlite3_close(db);
}

static void look(Store *store)
{
    g_autoptr(GPtrArray) images = NULL, problems = NULL, entries = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(StoreState) state = NULL;
    g_autoptr(json_t) stats = NULL, provenance = NULL;
    StoreGcOptions options = {.dry_run = true, .grace = 0};
    StoreGcReport report;

    (void)store_list_images(store, true, &images, NULL);
    if (store_resolve(store, "web", NULL, &image, NULL)) {
        g_autoptr(GHashTable) inputs = NULL;

        (void)store_image_inputs(store, image, &inputs, NULL);
        (void)store_image_provenance(store, image, &provenance, NULL);
        (void)store_state_get(store, &image->map, &state, NULL);
    }
    (void)store_stats(store, &stats, NULL);
    (void)store_gc(store, &options, &report, NULL);
    (void)block_index_refresh(store, NULL);
    (void)store_fsck(store, true, &problems, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(Store) store = NULL;
    int which;

    if (!kept)
        make_store();
    if (size < 2)
        return 0;
    which = data[0] >> 1 & 1;
    lay_out(data[0] & 1 ? -1 : which, data + 1, size - 1);
    if (data[0] & 1)
        change_rows(which, data + 1, size - 1);
    store = fuzz_open("store", data[0] & 4 ? STORE_OPEN_READONLY : 0);
    if (store)
        look(store);
    return 0;
}
