/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Marking in SQL. Roots are what sets refer to, the bake cache and the memos; a map's segments are in map_segment, and where those went that
 * were repacked is in moved, which never names another moved one. Nothing else refers.
 */
#include "store/reach.h"

bool reach_mark(Database *db, bool with_states, GError **error)
{
    static const char *const steps[] = {
        "CREATE TEMP TABLE IF NOT EXISTS live (digest BLOB PRIMARY KEY) WITHOUT ROWID",
        "CREATE TEMP TABLE IF NOT EXISTS live_segment (digest BLOB PRIMARY KEY) WITHOUT ROWID",
        "DELETE FROM live",
        "DELETE FROM live_segment",
        "INSERT OR IGNORE INTO live SELECT digest FROM reference",
        "INSERT OR IGNORE INTO live SELECT blob FROM memo WHERE blob IS NOT NULL",
        "INSERT OR IGNORE INTO live SELECT map FROM memo WHERE map IS NOT NULL",
    };
    static const char *const states[] = {
        "INSERT OR IGNORE INTO live SELECT map FROM state WHERE map IS NOT NULL",
        "INSERT OR IGNORE INTO live SELECT tree FROM state WHERE tree IS NOT NULL",
        "INSERT OR IGNORE INTO live SELECT files FROM state WHERE files IS NOT NULL",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(steps); i++)
        if (!database_run(db, error, steps[i], ""))
            return false;
    for (size_t i = 0; with_states && i < G_N_ELEMENTS(states); i++)
        if (!database_run(db, error, states[i], ""))
            return false;
    return database_run(db, error,
                        "INSERT OR IGNORE INTO live_segment SELECT segment FROM map_segment WHERE map IN (SELECT digest FROM live)", "") &&
           database_run(db, error, "INSERT OR IGNORE INTO live_segment SELECT target FROM moved WHERE segment IN (SELECT digest FROM live_segment)",
                        "");
}
