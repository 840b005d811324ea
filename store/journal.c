/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journals of groups: rows of state.db, a lock file per group, an epoch per group, and what each group holds.
 *
 * STORE/groups/NAME.lock is locked (flock) by who works on a group and has its process id as text. The kernel takes the lock
 * away with the process, so the text alone says nothing: whether somebody holds it is found by trying. The file is never
 * removed; were it, two could hold "the" lock, and then the epoch decides: the one who opened last goes on, the other's next
 * append is refused.
 *
 * Numbers are dense over the whole table, because a transaction that is rolled back takes its numbers back too. So a record
 * that was deleted leaves a gap even where its own chain does not show it.
 */
#include "store/journal.h"

#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "store/image-private.h"
#include "store/io.h"
#include "store/ledger.h"
#include "store/store-private.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>

#define GROUP_MAX_LENGTH 48
#define RECORD_MAX (1u << 20) /* bytes of one record's canonical text */
#define PID_TEXT_MAX 32
#define LOCK_TRIES 10         /* a look by store_journal_holder() takes the lock for an instant */
#define LOCK_PAUSE_US 10000
#define JOURNAL_COLUMNS "number, at, epoch, grp, who, record, previous, hash"

struct StoreJournal {
    Store *store;
    char *group;
    int64_t epoch;
    int fd;
};

static bool check_group(const char *group, GError **error)
{
    if (!g_ascii_islower(*group) || strlen(group) > GROUP_MAX_LENGTH ||
        strspn(group, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(group))
        return fail_code(error, KILN_ERROR_USAGE, "'%.60s' is no group: a lower-case letter, then letters, digits and '-', at most %d",
                         group, GROUP_MAX_LENGTH);
    return true;
}

/* --- the lock --- */

static char *lock_name(const char *group)
{
    return g_strdup_printf("groups/%s.lock", group);
}

static int64_t read_pid(int fd)
{
    char text[PID_TEXT_MAX] = "";
    ssize_t size = pread(fd, text, sizeof(text) - 1, 0);
    int64_t pid = size > 0 ? g_ascii_strtoll(text, NULL, 10) : 0;

    return pid > 0 ? pid : 0;
}

static bool fail_held(int fd, const char *group, GError **error)
{
    int64_t pid = read_pid(fd);

    return pid > 0 ? fail(error, "group '%s' is being worked on by process %" G_GINT64_FORMAT "; wait for it, or stop it first", group, pid)
                   : fail(error, "group '%s' is being worked on by another process; wait for it, or stop it first", group);
}

static bool lock_now(int fd, const char *group, GError **error)
{
    for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return fail_errno(error, "lock group '%s'", group);
        if (tries >= LOCK_TRIES)
            return fail_held(fd, group, error);
        g_usleep(LOCK_PAUSE_US);
    }
    return true;
}

static bool lock_once(Store *store, const char *group, bool wait, int *ret_fd, GError **error)
{
    g_autofree char *name = lock_name(group), *path = g_build_filename(store->path, name, NULL);
    g_autofree char *waiting = g_strdup_printf("waiting for who works on group '%s'", group);
    auto_fd int fd = io_open(store->dirfd, name, O_RDWR | O_CREAT | O_NOFOLLOW, 0644);

    if (fd < 0)
        return store_fail_errno(store, error, "lock a group in");
    if (!(wait ? file_lock(fd, path, waiting, error) : lock_now(fd, group, error)))
        return false;
    *ret_fd = g_steal_fd(&fd);
    return true;
}

/* Who waited for a file that was taken away meanwhile holds a lock that nobody else will meet. */
static bool is_current(Store *store, const char *group, int fd)
{
    g_autofree char *name = lock_name(group);
    struct stat ours, there;

    return fstat(fd, &ours) == 0 && fstatat(store->dirfd, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && ours.st_ino == there.st_ino &&
           ours.st_dev == there.st_dev;
}

static bool write_pid(Store *store, int fd, GError **error)
{
    g_autofree char *text = g_strdup_printf("%d\n", (int)getpid());

    if (io_truncate(fd, 0) < 0 || !io_pwrite_full(fd, text, strlen(text), 0))
        return store_fail_errno(store, error, "lock a group in");
    return true;
}

static bool take_lock(Store *store, const char *group, bool wait, int *ret_fd, GError **error)
{
    auto_fd int fd = -1;

    if (io_mkdir(store->dirfd, "groups", 0755) < 0 && errno != EEXIST)
        return store_fail_errno(store, error, "make the folder 'groups' of");
    do {
        scope_close_fd(&fd);
        fd = -1;
        if (!lock_once(store, group, wait, &fd, error))
            return false;
    } while (!is_current(store, group, fd));
    if (!write_pid(store, fd, error))
        return false;
    *ret_fd = g_steal_fd(&fd);
    return true;
}

bool store_journal_holder(Store *store, const char *group, int64_t *ret_pid, GError **error)
{
    g_autofree char *name = lock_name(group);
    auto_fd int fd = -1;

    *ret_pid = 0;
    if (!check_group(group, error))
        return false;
    fd = io_open(store->dirfd, name, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return errno == ENOENT || store_fail_errno(store, error, "look at a group's lock in");
    if (flock(fd, LOCK_SH | LOCK_NB) == 0)
        return true;
    if (errno != EWOULDBLOCK)
        return store_fail_errno(store, error, "look at a group's lock in");
    *ret_pid = read_pid(fd);
    return true;
}

/* --- epochs --- */

static bool last_epoch(Database *db, const char *group, int64_t *ret, GError **error)
{
    return database_int(db, 0, ret, error,
                        "SELECT max(coalesce((SELECT epoch FROM journal_epoch WHERE grp = ?1), 0),"
                        " coalesce((SELECT max(epoch) FROM journal WHERE grp = ?1), 0))", "t", group);
}

static bool raise_epoch(Store *store, const char *group, int64_t *ret, GError **error)
{
    Database *db;
    int64_t epoch;

    if (!store_state_db(store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!last_epoch(db, group, &epoch, error) ||
        !database_run(db, error, "INSERT OR REPLACE INTO journal_epoch VALUES (?1,?2)", "ti", group, epoch + 1)) {
        database_rollback(db);
        return false;
    }
    *ret = epoch + 1;
    return database_commit(db, error);
}

bool store_journal_open(Store *store, const char *group, bool wait, StoreJournal **ret, GError **error)
{
    g_autoptr(StoreJournal) journal = g_new0(StoreJournal, 1);

    journal->store = store;
    journal->fd = -1;
    journal->group = g_strdup(group);
    if (!check_group(group, error) || !store_writable(store, error) || !take_lock(store, group, wait, &journal->fd, error) ||
        !raise_epoch(store, group, &journal->epoch, error))
        return false;
    *ret = g_steal_pointer(&journal);
    return true;
}

void store_journal_close(StoreJournal *journal)
{
    if (!journal)
        return;
    if (journal->epoch)
        (void)store_ledger_follow(journal->store); /* while the lock is held: who comes next need not */
    scope_close_fd(&journal->fd);
    g_free(journal->group);
    g_free(journal);
}

int64_t store_journal_epoch(const StoreJournal *journal)
{
    return journal->epoch;
}

const char *store_journal_group(const StoreJournal *journal)
{
    return journal->group;
}

Store *store_journal_store(const StoreJournal *journal)
{
    return journal->store;
}

/* --- records --- */

static void record_free(gpointer data)
{
    StoreJournalRecord *record = data;

    g_free(record->group);
    g_free(record->who);
    json_decref(record->record);
    g_free(record);
}

static void record_hash(const StoreJournalRecord *record, Digest *ret)
{
    char previous[DIGEST_OCI_SIZE];
    g_autoptr(json_t) all = json_pack("{s:I, s:I, s:I, s:O}", "number", (json_int_t)record->number, "at", (json_int_t)record->at,
                                      "epoch", (json_int_t)record->epoch, "record", record->record);

    json_object_set_new(all, "group", store_text_json(record->group));
    json_object_set_new(all, "who", store_text_json(record->who));
    json_object_set_new(all, "previous", digest_is_none(&record->previous) ? json_null() : json_string(digest_to_oci(&record->previous, previous)));
    json_digest(all, ret);
}

/* *ret_damaged: why the row's text is no record; then its @record is null. */
static StoreJournalRecord *record_from_row(Query *query, char **ret_damaged)
{
    StoreJournalRecord *record = g_new0(StoreJournalRecord, 1);
    const char *text = query_text(query, 5);
    g_autoptr(GError) why = NULL;

    record->number = query_int(query, 0);
    record->at = query_int(query, 1);
    record->epoch = query_int(query, 2);
    record->group = g_strdup(query_text(query, 3));
    record->who = g_strdup(query_text(query, 4));
    query_digest(query, 6, &record->previous);
    query_digest(query, 7, &record->hash);
    if (!text || !json_parse(text, strlen(text), RECORD_MAX, "the record", &record->record, &why)) {
        *ret_damaged = g_strdup(why ? why->message : "it has no text");
        record->record = json_null();
    }
    return record;
}

static bool last_record(Database *db, const char *group, int64_t *ret_number, Digest *ret_hash, GError **error)
{
    g_autoptr(Query) query = database_query(db, error, "SELECT hash FROM journal WHERE grp = ?1 ORDER BY number DESC LIMIT 1", "t", group);
    int rc = query ? query_step(query, error) : -1;

    *ret_hash = digest_none;
    if (rc > 0)
        query_digest(query, 0, ret_hash);
    return rc >= 0 && database_int(db, 0, ret_number, error, "SELECT seq FROM sqlite_sequence WHERE name = 'journal'", "");
}

static bool check_epoch(Database *db, const StoreJournal *journal, GError **error)
{
    int64_t epoch;

    if (!last_epoch(db, journal->group, &epoch, error))
        return false;
    return epoch == journal->epoch ||
           fail(error, "another process took over group '%s' (epoch %" G_GINT64_FORMAT ", ours is %" G_GINT64_FORMAT "); this one stops", journal->group,
                epoch, journal->epoch);
}

static bool add_record(Database *db, StoreJournalRecord *record, GError **error)
{
    g_autofree char *text = NULL;

    if (!json_is_object(record->record))
        return fail(error, "a record for group '%s' is no JSON object", record->group);
    text = json_canonical(record->record);
    if (strlen(text) > RECORD_MAX)
        return fail(error, "a record for group '%s' has more than %u bytes", record->group, RECORD_MAX);
    record_hash(record, &record->hash);
    return database_run(db, error, "INSERT INTO journal (" JOURNAL_COLUMNS ") VALUES (?1,?2,?3,?4,?5,?6,?7,?8)", "iiitttdd", record->number,
                        record->at, record->epoch, record->group, record->who, text, &record->previous, &record->hash);
}

static bool add_records(Database *db, const StoreJournal *journal, GPtrArray *records, GError **error)
{
    g_autofree char *who = store_user();
    StoreJournalRecord record = {.at = g_get_real_time(), .epoch = journal->epoch, .group = journal->group, .who = who};

    if (!last_record(db, journal->group, &record.number, &record.previous, error))
        return false;
    for (guint i = 0; i < records->len; i++) {
        record.number++;
        record.record = records->pdata[i];
        if (!add_record(db, &record, error))
            return false;
        record.previous = record.hash;
    }
    return true;
}

/* --- holds --- */

/*
 * With the catalog's write lock, which rm has from its look at the holds until the image is gone: so what is here now stays.
 * Order of locks: state, then catalog, as in store_remove_image().
 */
static bool check_images(Store *store, const char *group, const GArray *holds, GError **error)
{
    Database *catalog;
    bool ok = true;

    if (holds->len == 0)
        return true;
    if (!store_catalog(store, &catalog, error) || !database_begin(catalog, false, error))
        return false;
    for (guint i = 0; ok && i < holds->len; i++) {
        char hex[DIGEST_OCI_SIZE];
        int64_t known;

        ok = database_int(catalog, 0, &known, error, "SELECT count(*) FROM image WHERE id = ?1 AND bytes_gone = 0", "d", &g_array_index(holds, Digest, i)) &&
             (known || fail_code(error, KILN_ERROR_NOT_FOUND, "group '%s' cannot hold image %s: its bytes are not in store '%s'", group,
                                 digest_to_oci(&g_array_index(holds, Digest, i), hex), store->path));
    }
    database_rollback(catalog);
    return ok;
}

static bool set_holds(Store *store, Database *db, const char *group, const GArray *holds, GError **error)
{
    if (!check_images(store, group, holds, error) || !database_run(db, error, "DELETE FROM hold WHERE grp = ?1", "t", group))
        return false;
    for (guint i = 0; i < holds->len; i++)
        if (!database_run(db, error, "INSERT OR IGNORE INTO hold VALUES (?1,?2)", "td", group, &g_array_index(holds, Digest, i)))
            return false;
    return true;
}

bool store_journal_append(StoreJournal *journal, GPtrArray *records, const GArray *holds, GError **error)
{
    Database *db;

    if (!store_state_db(journal->store, &db, error) || !database_begin(db, true, error))
        return false;
    if (!check_epoch(db, journal, error) || !add_records(db, journal, records, error) ||
        (holds && !set_holds(journal->store, db, journal->group, holds, error))) {
        database_rollback(db);
        return false;
    }
    return database_commit(db, error) && store_ledger_follow_sometimes(journal->store);
}

static bool list_texts(Database *db, Query *query, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0)
        g_ptr_array_add(list, g_strdup(query_text(query, 0)));
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&list);
    return true;
}

bool store_journal_all_holds(Store *store, GArray **ret, GError **error)
{
    g_autoptr(GArray) holds = g_array_new(FALSE, FALSE, sizeof(Digest));
    g_autoptr(Query) query = NULL;
    Database *db;
    int rc;

    if (!store_state_db(store, &db, error) || !(query = database_query(db, error, "SELECT DISTINCT image FROM hold", "")))
        return false;
    while ((rc = query_step(query, error)) > 0) {
        Digest image;

        query_digest(query, 0, &image);
        g_array_append_val(holds, image);
    }
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&holds);
    return true;
}

bool store_journal_holders(Store *store, const Digest *image, GPtrArray **ret, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;

    if (!store_state_db(store, &db, error))
        return false;
    query = database_query(db, error, "SELECT grp FROM hold WHERE image = ?1 ORDER BY grp", "d", image);
    return list_texts(db, query, ret, error);
}

bool store_journal_groups(Store *store, GPtrArray **ret, GError **error)
{
    g_autoptr(Query) query = NULL;
    Database *db;

    if (!store_state_db(store, &db, error))
        return false;
    query = database_query(db, error, "SELECT DISTINCT grp FROM journal ORDER BY grp", "");
    return list_texts(db, query, ret, error);
}

/* --- reading --- */

static Query *query_records(Store *store, const char *group, int64_t after, GError **error)
{
    Database *db;

    if (!store_state_db(store, &db, error))
        return NULL;
    return group ? database_query(db, error, "SELECT " JOURNAL_COLUMNS " FROM journal WHERE grp = ?1 AND number > ?2 ORDER BY number", "ti",
                                  group, after)
                 : database_query(db, error, "SELECT " JOURNAL_COLUMNS " FROM journal WHERE number > ?1 ORDER BY number", "i", after);
}

bool store_journal_read(Store *store, const char *group, int64_t after, GPtrArray **ret, GError **error)
{
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func(record_free);
    g_autoptr(Query) query = group && !check_group(group, error) ? NULL : query_records(store, group, after, error);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0) {
        g_autofree char *damaged = NULL;
        StoreJournalRecord *record = record_from_row(query, &damaged);

        g_ptr_array_add(records, record);
        if (damaged)
            return fail(error, "record %" G_GINT64_FORMAT " of group '%s' cannot be read (%s): run kiln fsck", record->number, record->group, damaged);
    }
    if (rc < 0)
        return false;
    *ret = g_steal_pointer(&records);
    return true;
}

/* --- verifying --- */

typedef struct Verify {
    GPtrArray *problems;
    GHashTable *last; /* group -> Digest*: hash of its newest record so far */
    int64_t number;   /* of the newest record of all */
} Verify;

static void problem(Verify *v, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void problem(Verify *v, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(v->problems, g_strdup_vprintf(format, args));
    va_end(args);
}

static void verify_record(Verify *v, const StoreJournalRecord *record, bool damaged)
{
    const Digest *last = g_hash_table_lookup(v->last, record->group);
    Digest hash;

    record_hash(record, &hash);
    if (damaged || !digest_equal(&hash, &record->hash))
        problem(v, "record %" G_GINT64_FORMAT " of group '%s' was changed after it was written", record->number, record->group);
    else if (!digest_equal(last ? last : &digest_none, &record->previous))
        problem(v, "record %" G_GINT64_FORMAT " of group '%s' does not follow the one before it: the chain is broken", record->number, record->group);
    store_note_gap(v->problems, "journals", v->number, record->number);
    v->number = record->number;
    g_hash_table_insert(v->last, g_strdup(record->group), g_memdup2(&record->hash, sizeof(Digest)));
}

static bool verify_records(Store *store, Verify *v, GError **error)
{
    g_autoptr(Query) query = query_records(store, NULL, 0, error);
    int rc = query ? 0 : -1;

    while (query && (rc = query_step(query, error)) > 0) {
        g_autofree char *damaged = NULL;
        StoreJournalRecord *record = record_from_row(query, &damaged);

        verify_record(v, record, damaged != NULL);
        record_free(record);
    }
    return rc >= 0;
}

/* A writer may commit between the two looks; what it added is more, never less. */
bool store_journals_verify(Store *store, GPtrArray *problems, GError **error)
{
    g_autoptr(GHashTable) last = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    Verify v = {.problems = problems, .last = last};
    int64_t written;
    Database *db;

    if (!store_state_db(store, &db, error) ||
        !database_int(db, 0, &written, error, "SELECT seq FROM sqlite_sequence WHERE name = 'journal'", "") || !verify_records(store, &v, error))
        return false;
    store_note_gap(problems, "journals", v.number, written + 1);
    return true;
}
