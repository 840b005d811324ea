/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: blobs of the ledger, as a rebuild reads them: a JSON document whose rows go into a state.db, and its sets from there into a catalog. Both are
 * rolled back. What went in must come out again.
 */
#include "tests/fuzz/fuzz-store.h"

#include "store/ledger.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Store *store;
static Database *state, *catalog;

static void make_store(void)
{
    store = fuzz_open("store", STORE_OPEN_CREATE);
    if (!store_state_db(store, &state, NULL) || !store_catalog(store, &catalog, NULL))
        abort();
}

static void come_out(void)
{
    LedgerThrough since = {0}, through;
    g_autoptr(json_t) document = NULL;
    g_autofree char *text = NULL;
    bool has;

    if (ledger_collect(state, &since, &document, &through, NULL))
        text = json_canonical(document);
    (void)ledger_has(state, &through, &has, NULL);
}

static void apply(const json_t *document)
{
    LedgerThrough through;

    (void)ledger_through_parse(json_object_get(document, "through"), &through);
    if (!database_begin(state, false, NULL))
        abort();
    if (ledger_apply(state, document, NULL)) {
        come_out();
        if (!database_begin(catalog, false, NULL))
            abort();
        (void)published_restore(store, catalog, state, true, NULL);
        database_rollback(catalog);
    }
    database_rollback(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(json_t) document = NULL;
    g_autoptr(GHashTable) needs = g_hash_table_new_full(digest_hash, digest_equal_gfunc, g_free, NULL);
    g_autofree char *text = g_strndup((const char *)data, size);

    if (!store)
        make_store();
    (void)published_needs(text, needs, NULL);
    if (json_parse((const char *)data, size, LEDGER_BLOB_MAX, "fuzz", &document, NULL))
        apply(document);
    return 0;
}
