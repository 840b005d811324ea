/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Letters to a group's controller: rows that only their taker, or who wrote them, removes.
 */
#include "store/journal.h"

#include "base/error.h"
#include "store/image-private.h"
#include "store/store-private.h"

#define REQUEST_MAX (64u << 10)

static void request_free(gpointer data)
{
    StoreJournalRequest *request = data;

    g_free(request->who);
    json_decref(request->request);
    g_free(request);
}

bool store_journal_ask(Store *store, const char *group, const json_t *request, int64_t *ret_number, GError **error)
{
    g_autofree char *text = json_canonical(request), *who = store_user();
    Database *db;

    if (strlen(text) > REQUEST_MAX)
        return fail(error, "what is asked of group '%s' is too long", group);
    if (!store_writable(store, error) || !store_state_db(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!database_run(db, error, "INSERT INTO journal_request (grp, at, who, request) VALUES (?1,?2,?3,?4)", "titt", group, g_get_real_time(),
                      who, text)) {
        database_rollback(db);
        return false;
    }
    *ret_number = database_last_id(db);
    return database_commit(db, error);
}

static bool add_request(Query *query, GPtrArray *requests, GError **error)
{
    const char *text = query_text(query, 3);
    StoreJournalRequest *request = g_new0(StoreJournalRequest, 1);

    g_ptr_array_add(requests, request);
    request->number = query_int(query, 0);
    request->at = query_int(query, 1);
    request->who = g_strdup(query_text(query, 2) ? query_text(query, 2) : "");
    return text && json_parse(text, strlen(text), REQUEST_MAX, "a request to a group", &request->request, error);
}

bool store_journal_asked(StoreJournal *journal, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) requests = g_ptr_array_new_with_free_func(request_free);
    g_autoptr(Query) query = NULL;
    Database *db;
    int rc;

    if (!store_state_db(store_journal_store(journal), &db, error) ||
        !(query = database_query(db, error, "SELECT number, at, who, request FROM journal_request WHERE grp = ?1 ORDER BY number", "t",
                                 store_journal_group(journal))))
        return false;
    while ((rc = query_step(query, error)) > 0)
        if (!add_request(query, requests, error))
            return false;
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&requests);
    return true;
}

static bool delete_request(Store *store, int64_t number, GError **error)
{
    Database *db;

    if (!store_state_db(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!database_run(db, error, "DELETE FROM journal_request WHERE number = ?1", "i", number)) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error);
}

bool store_journal_answered(StoreJournal *journal, int64_t number, GError **error)
{
    return delete_request(store_journal_store(journal), number, error);
}

bool store_journal_take_back(Store *store, int64_t number, GError **error)
{
    return delete_request(store, number, error);
}

bool store_journal_is_waiting(Store *store, int64_t number, bool *ret, GError **error)
{
    Database *db;
    int64_t count;

    if (!store_state_db(store, &db, error) || !database_int(db, 0, &count, error, "SELECT count(*) FROM journal_request WHERE number = ?1", "i", number))
        return false;
    *ret = count > 0;
    return true;
}
