/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Journals of groups: chains, locks, epochs, holds.
 */
#include "tests/unit/store-support.h"

#include "base/error.h"
#include "base/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define OLD_HASH "2ce4dffbc0e02a003fab840a0dac6b07b0b676c082856de539405ad58693b7c2"

static void say(StoreJournal *journal, const char *what, int number)
{
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    g_autoptr(GError) error = NULL;

    g_ptr_array_add(records, json_pack("{s:s, s:i}", "do", what, "n", number));
    store_journal_append(journal, records, NULL, &error);
    g_assert_no_error(error);
}

static StoreJournal *open_group(Store *store, const char *group)
{
    g_autoptr(GError) error = NULL;
    StoreJournal *journal = NULL;

    store_journal_open(store, group, false, &journal, &error);
    g_assert_no_error(error);
    return journal;
}

static guint count(Store *store, const char *group)
{
    g_autoptr(GPtrArray) records = NULL;
    g_autoptr(GError) error = NULL;

    store_journal_read(store, group, 0, &records, &error);
    g_assert_no_error(error);
    return records->len;
}

/* The one problem found must say @says; NULL: there is none. */
static void assert_verifies(Store *store, const char *says)
{
    g_autoptr(GPtrArray) problems = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) error = NULL;
    bool found = false;

    g_assert_true(store_journals_verify(store, problems, &error));
    for (guint i = 0; i < problems->len; i++) {
        g_test_message("%s", (char *)problems->pdata[i]);
        found |= says && strstr(problems->pdata[i], says);
    }
    g_assert_true(says ? found : problems->len == 0);
}

static void test_replay(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) records = NULL, groups = NULL;
    const StoreJournalRecord *first, *second;
    g_autoptr(StoreJournal) web = open_group(f->store, "web"), db = open_group(f->store, "db");

    say(web, "begin", 1);
    say(db, "begin", 7);
    say(web, "stable", 2);
    g_assert_true(store_journal_read(f->store, "web", 0, &records, NULL));
    g_assert_cmpuint(records->len, ==, 2);
    first = records->pdata[0];
    second = records->pdata[1];
    g_assert_cmpstr(json_string_value(json_object_get(second->record, "do")), ==, "stable");
    g_assert_true(digest_is_none(&first->previous) && digest_equal(&second->previous, &first->hash));
    g_assert_cmpint(first->epoch, ==, 1);
    g_assert_cmpstr(first->group, ==, "web");
    g_assert_true(first->who && *first->who && first->at > 0);
    g_assert_cmpuint(count(f->store, NULL), ==, 3);
    g_clear_pointer(&records, g_ptr_array_unref);
    g_assert_true(store_journal_read(f->store, "web", 1, &records, NULL));
    g_assert_cmpuint(records->len, ==, 1);
    g_assert_true(store_journal_groups(f->store, &groups, NULL));
    g_assert_cmpuint(groups->len, ==, 2);
    g_assert_cmpstr(groups->pdata[0], ==, "db");
    assert_verifies(f->store, NULL);
}

static void test_epochs_rise(StoreFixture *f, gconstpointer data)
{
    for (int64_t i = 1; i <= 3; i++) {
        g_autoptr(StoreJournal) journal = open_group(f->store, "web");

        g_assert_cmpint(store_journal_epoch(journal), ==, i);
    }
    test_state_sql(f->store, "DELETE FROM journal_epoch"); /* what records say counts as well */
    {
        g_autoptr(StoreJournal) journal = open_group(f->store, "web");
        say(journal, "begin", 1);
    }
    test_state_sql(f->store, "UPDATE journal SET epoch = 40; DELETE FROM journal_epoch");
    {
        g_autoptr(StoreJournal) journal = open_group(f->store, "web");
        g_assert_cmpint(store_journal_epoch(journal), ==, 41);
    }
}

static void fill(StoreFixture *f)
{
    g_autoptr(StoreJournal) web = open_group(f->store, "web"), db = open_group(f->store, "db");

    for (int i = 0; i < 4; i++)
        say(i == 2 ? db : web, "step", i);
}

static void test_tampering(StoreFixture *f, gconstpointer data)
{
    static const struct {
        const char *sql, *says;
    } cases[] = {
        {"UPDATE journal SET record = '{\"do\":\"other\"}' WHERE number = 2", "record 2 of group 'web' was changed"},
        {"UPDATE journal SET record = '{' WHERE number = 2", "record 2 of group 'web' was changed"},
        {"UPDATE journal SET record = x'ff' WHERE number = 2", "record 2 of group 'web' was changed"},
        {"UPDATE journal SET at = at + 1 WHERE number = 1", "record 1 of group 'web' was changed"},
        {"UPDATE journal SET who = 'eve' WHERE number = 1", "record 1 of group 'web' was changed"},
        {"UPDATE journal SET who = x'ff' WHERE number = 1", "record 1 of group 'web' was changed"},
        {"UPDATE journal SET epoch = 9 WHERE number = 4", "record 4 of group 'web' was changed"},
        {"UPDATE journal SET grp = 'db' WHERE number = 2", "record 2 of group 'db' was changed"},
        {"UPDATE journal SET grp = x'ff' WHERE number = 2", "was changed"},
        {"UPDATE journal SET previous = NULL WHERE number = 4", "record 4 of group 'web' was changed"},
        {"DELETE FROM journal WHERE number = 2", "record 4 of group 'web' does not follow"},
        {"DELETE FROM journal WHERE number = 3", "record 3 of the journals was taken away"},
        {"DELETE FROM journal WHERE number > 2", "records 3 to 4 of the journals were taken away"},
    };

    fill(f);
    assert_verifies(f->store, NULL);
    test_state_sql(f->store, "CREATE TABLE kept AS SELECT * FROM journal");
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("%s", cases[i].sql);
        test_state_sql(f->store, cases[i].sql);
        assert_verifies(f->store, cases[i].says);
        test_state_sql(f->store, "DELETE FROM journal; INSERT INTO journal SELECT * FROM kept");
        assert_verifies(f->store, NULL);
    }
    test_state_sql(f->store, "DROP TABLE kept");
}

static void test_fsck_finds_it(StoreFixture *f, gconstpointer data)
{
    g_autoptr(GPtrArray) problems = NULL;

    fill(f);
    test_state_sql(f->store, "UPDATE journal SET who = 'eve' WHERE number = 3");
    g_assert_true(store_fsck(f->store, false, &problems, NULL));
    g_assert_cmpuint(problems->len, ==, 1);
    g_assert_nonnull(strstr(problems->pdata[0], "group 'db'"));
}

/* A child that works on @group, says so through the pipe, appends @number records, and lives until it is killed. */
static pid_t hold_in_child(const char *store, const char *group, int number)
{
    int fds[2];
    char c;
    pid_t pid;

    g_assert_cmpint(pipe(fds), ==, 0);
    pid = fork();
    if (pid == 0) {
        Store *mine = NULL;
        StoreJournal *journal = NULL;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* not longer than a test that fails */
        if (!store_open(store, 0, &mine, NULL) || !store_journal_open(mine, group, false, &journal, NULL))
            _exit(1);
        for (int i = 0; i < number; i++)
            say(journal, "child", i);
        if (write(fds[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    (void)close(fds[1]);
    g_assert_cmpint(read(fds[0], &c, 1), ==, 1);
    (void)close(fds[0]);
    return pid;
}

static void kill_child(pid_t pid)
{
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
}

static void test_two_writers(StoreFixture *f, gconstpointer data)
{
    g_autofree char *path = g_strdup(store_path(f->store)), *pid_text = NULL;
    g_autoptr(StoreJournal) journal = NULL;
    g_autoptr(GError) error = NULL;
    int64_t holder;
    pid_t pid = hold_in_child(path, "web", 3);

    pid_text = g_strdup_printf("process %d;", (int)pid);
    g_assert_true(store_journal_holder(f->store, "web", &holder, NULL));
    g_assert_cmpint(holder, ==, pid);
    g_assert_true(store_journal_holder(f->store, "db", &holder, NULL));
    g_assert_cmpint(holder, ==, 0);
    g_assert_false(store_journal_open(f->store, "web", false, &journal, &error));
    g_test_message("%s", error->message);
    g_assert_cmpint(error->code, ==, KILN_ERROR_FAILED);
    g_assert_nonnull(strstr(error->message, pid_text));
    g_assert_cmpuint(count(f->store, "web"), ==, 3); /* readers need no lock */
    kill_child(pid);
    g_assert_true(store_journal_holder(f->store, "web", &holder, NULL));
    g_assert_cmpint(holder, ==, 0);
    journal = open_group(f->store, "web");
    g_assert_cmpint(store_journal_epoch(journal), ==, 2);
    assert_verifies(f->store, NULL);
}

static void test_waiting(StoreFixture *f, gconstpointer data)
{
    g_autoptr(StoreJournal) journal = NULL;
    pid_t pid = hold_in_child(store_path(f->store), "web", 1), killer = fork();

    if (killer == 0) {
        g_usleep(200000);
        (void)kill(pid, SIGKILL);
        _exit(0);
    }
    g_assert_true(store_journal_open(f->store, "web", true, &journal, NULL));
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    g_assert_cmpint(waitpid(killer, NULL, 0), ==, killer);
    g_assert_cmpint(store_journal_epoch(journal), ==, 2);
}

/* Who waited for a lock file that was taken away and made anew does not go on with the old one. */
static void test_waiting_for_a_lost_file(StoreFixture *f, gconstpointer data)
{
    g_autofree char *path = g_strdup(store_path(f->store)), *lock = g_build_filename(path, "groups", "web.lock", NULL);
    g_autoptr(StoreJournal) journal = NULL;
    pid_t pid = hold_in_child(path, "web", 1), killer = fork();
    int64_t holder;

    if (killer == 0) {
        g_usleep(100000);
        (void)unlink(lock);
        (void)close(open(lock, O_CREAT | O_WRONLY, 0644));
        (void)kill(pid, SIGKILL);
        _exit(0);
    }
    g_assert_true(store_journal_open(f->store, "web", true, &journal, NULL));
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    g_assert_cmpint(waitpid(killer, NULL, 0), ==, killer);
    g_assert_true(store_journal_holder(f->store, "web", &holder, NULL));
    g_assert_cmpint(holder, ==, getpid());
}

static void test_stale_epoch(StoreFixture *f, gconstpointer data)
{
    g_autofree char *lock = g_build_filename(store_path(f->store), "groups", "web.lock", NULL);
    g_autoptr(StoreJournal) first = open_group(f->store, "web"), second = NULL;
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    g_autoptr(GError) error = NULL;

    say(first, "begin", 1);
    g_assert_cmpint(unlink(lock), ==, 0);
    second = open_group(f->store, "web");
    g_ptr_array_add(records, json_pack("{s:s}", "do", "stale"));
    g_assert_false(store_journal_append(first, records, NULL, &error));
    g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, "took over group 'web'"));
    say(second, "begin", 2);
    g_assert_cmpuint(count(f->store, "web"), ==, 2);
    assert_verifies(f->store, NULL);
}

static void test_bad_input(StoreFixture *f, gconstpointer data)
{
    static const char *const bad[] = {"", "Web", "1web", "we/b", "../web", "we b", "w\xc3\xa9", "web."};
    g_autofree char *longest = g_strnfill(48, 'a'), *longer = g_strnfill(49, 'a'), *much = g_strnfill(2 << 20, 'a');
    g_autoptr(StoreJournal) journal = open_group(f->store, longest);
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    StoreJournal *none = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_false(store_journal_open(f->store, bad[i], false, &none, NULL));
    g_assert_false(store_journal_open(f->store, longer, false, &none, NULL));
    g_ptr_array_add(records, json_pack("{s:s}", "do", "good"));
    g_ptr_array_add(records, json_pack("[s]", "no object"));
    g_assert_false(store_journal_append(journal, records, NULL, NULL));
    g_ptr_array_set_size(records, 1);
    g_ptr_array_add(records, json_pack("{s:s}", "do", much));
    g_assert_false(store_journal_append(journal, records, NULL, NULL));
    g_assert_cmpuint(count(f->store, NULL), ==, 0); /* all or none */
    say(journal, "after", 1);
    assert_verifies(f->store, NULL);
}

/* Killed at any moment, a journal is whole, and holds at least what was said to be there. */
static void test_crash(StoreFixture *f, gconstpointer data)
{
    for (int round = 0; round < 8; round++) {
        guint before = count(f->store, "web"), known = 0;
        int fds[2];
        char c;
        pid_t pid;

        g_assert_cmpint(pipe(fds), ==, 0);
        pid = fork();
        if (pid == 0) {
            Store *mine = NULL;
            StoreJournal *journal = NULL;

            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (!store_open(store_path(f->store), 0, &mine, NULL) || !store_journal_open(mine, "web", true, &journal, NULL))
                _exit(1);
            for (int i = 0;; i++) {
                say(journal, "crash", i);
                if (write(fds[1], "x", 1) != 1)
                    _exit(1);
            }
        }
        (void)close(fds[1]);
        while (known < 10 && read(fds[0], &c, 1) == 1)
            known++;
        g_usleep((gulong)(g_random_int() % 3000));
        kill_child(pid);
        while (read(fds[0], &c, 1) == 1)
            known++;
        (void)close(fds[0]);
        g_assert_cmpuint(count(f->store, "web"), >=, before + known);
        g_assert_cmpuint(count(f->store, "web"), <=, before + known + 1);
        assert_verifies(f->store, NULL);
    }
}

static void test_speed(StoreFixture *f, gconstpointer data)
{
    g_autoptr(StoreJournal) journal = open_group(f->store, "web");
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    gint64 start = g_get_monotonic_time();

    for (int i = 0; i < 10000; i++)
        g_ptr_array_add(records, json_pack("{s:s, s:s, s:i, s:i, s:i}", "do", "intent", "act", "create", "revision", 3, "slot", i, "attempt", 1));
    g_assert_true(store_journal_append(journal, records, NULL, NULL));
    g_test_message("10,000 records in one transaction: %.3f s", (double)(g_get_monotonic_time() - start) / 1e6);
    start = g_get_monotonic_time();
    g_assert_cmpuint(count(f->store, "web"), ==, 10000);
    g_test_message("reading them: %.3f s", (double)(g_get_monotonic_time() - start) / 1e6);
    start = g_get_monotonic_time();
    assert_verifies(f->store, NULL);
    g_test_message("verifying them: %.3f s", (double)(g_get_monotonic_time() - start) / 1e6);
    start = g_get_monotonic_time();
    for (int i = 0; i < 100; i++)
        say(journal, "one", i);
    g_test_message("100 transactions: %.3f s", (double)(g_get_monotonic_time() - start) / 1e6);
}

/* --- holds --- */

static Digest publish(Store *store, const char *name, const char *seed)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new_with_free_func((GDestroyNotify)store_image_free);
    StoreImage *image = store_image_new("oci", name);
    StoreSet set = {.name = name, .images = images};
    g_autoptr(GError) error = NULL;

    g_ptr_array_add(images, image);
    g_assert_true(store_blob_put(store, seed, strlen(seed), &image->id, NULL) && store_blob_put(store, "m", 1, &image->manifest, NULL));
    store_publish(store, &set, &error);
    g_assert_no_error(error);
    return image->id;
}

static void hold(StoreJournal *journal, const Digest *image, GError **error)
{
    g_autoptr(GPtrArray) records = g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
    g_autoptr(GArray) holds = g_array_new(FALSE, FALSE, sizeof(Digest));

    if (image)
        g_array_append_val(holds, *image);
    g_ptr_array_add(records, json_pack("{s:s}", "do", "begin"));
    (void)store_journal_append(journal, records, holds, error);
}

static void collect(Store *store)
{
    StoreGcOptions options = {.grace = 0};
    StoreGcReport report;

    g_assert_true(store_gc(store, &options, &report, NULL));
}

static void test_holds(StoreFixture *f, gconstpointer data)
{
    g_autoptr(StoreJournal) journal = open_group(f->store, "web");
    g_autoptr(GPtrArray) groups = NULL, problems = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_autoptr(GError) error = NULL;
    Digest old = publish(f->store, "web", "{\"a\":1}"), unknown = old;

    (void)publish(f->store, "web", "{\"a\":2}");
    unknown.bytes[0] ^= 1;
    hold(journal, &unknown, &error);
    g_test_message("%s", error->message);
    g_assert_cmpint(error->code, ==, KILN_ERROR_NOT_FOUND);
    g_assert_cmpuint(count(f->store, "web"), ==, 0); /* nor was the record written */
    g_clear_error(&error);
    hold(journal, &old, &error);
    g_assert_no_error(error);
    say(journal, "step", 1); /* without holds: they stay */
    g_assert_true(store_journal_holders(f->store, &old, &groups, NULL));
    g_assert_cmpuint(groups->len, ==, 1);
    g_assert_cmpstr(groups->pdata[0], ==, "web");
    {
        char oci[DIGEST_OCI_SIZE];
        g_assert_true(store_resolve(f->store, digest_to_oci(&old, oci), NULL, &image, NULL));
    }
    g_assert_false(store_remove_image(f->store, image, &error));
    g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, "held by group 'web'"));
    g_clear_error(&error);
    collect(f->store);
    g_assert_true(store_blob_has(f->store, &old));
    g_assert_true(store_fsck(f->store, true, &problems, NULL));
    g_assert_cmpuint(problems->len, ==, 0);
    hold(journal, NULL, &error);
    g_assert_no_error(error);
    g_assert_true(store_remove_image(f->store, image, &error));
    collect(f->store);
    g_assert_false(store_blob_has(f->store, &old));
}

/* --- older databases --- */

static void test_upgrade(StoreFixture *f, gconstpointer data)
{
    int version = GPOINTER_TO_INT(data);
    g_autofree char *path = g_strdup(store_path(f->store)), *database = g_build_filename(path, "state.db", NULL);
    g_autoptr(GPtrArray) entries = NULL, problems = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(StoreJournal) journal = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_true(store_channels(f->store, NULL, true, &entries, NULL));
    store_close(g_steal_pointer(&f->store));
    g_assert_cmpint(unlink(database), ==, 0);
    {
        sqlite3 *db;
        g_assert_cmpint(sqlite3_open(database, &db), ==, SQLITE_OK);
        g_assert_cmpint(sqlite3_exec(db, /* as the first and the second version wrote it */
                                     "PRAGMA journal_mode = WAL; PRAGMA application_id = 1263094867; PRAGMA user_version = 1;"
                                     "CREATE TABLE name (name TEXT NOT NULL, kind TEXT NOT NULL, image BLOB NOT NULL, bake INTEGER NOT NULL,"
                                     " at INTEGER NOT NULL, PRIMARY KEY (name, kind)) WITHOUT ROWID;"
                                     "CREATE TABLE channel_log (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, kind TEXT NOT NULL,"
                                     " channel TEXT NOT NULL, image BLOB NOT NULL, at INTEGER NOT NULL, who TEXT, previous BLOB, hash BLOB NOT NULL);",
                                     NULL, NULL, NULL), ==, SQLITE_OK);
        if (version == 2) /* one entry, whose hash that version computed */
            g_assert_cmpint(
                sqlite3_exec(db,
                             "ALTER TABLE channel_log ADD COLUMN action TEXT NOT NULL DEFAULT 'promote'; ALTER TABLE channel_log ADD COLUMN note TEXT;"
                             "CREATE INDEX channel_log_place ON channel_log (name, kind, channel);"
                             "CREATE INDEX channel_log_image ON channel_log (image); PRAGMA user_version = 2;"
                             "INSERT INTO channel_log VALUES (1,'web','oci','prod',"
                             "x'0101010101010101010101010101010101010101010101010101010101010101',1700000000,'ann',NULL,"
                             "x'" OLD_HASH "','promote','first')",
                             NULL, NULL, NULL), ==, SQLITE_OK);
        sqlite3_close(db);
    }
    store_open(path, 0, &f->store, &error);
    g_assert_no_error(error);
    journal = open_group(f->store, "web");
    say(journal, "begin", 1);
    assert_verifies(f->store, NULL);
    g_clear_pointer(&entries, g_ptr_array_unref);
    g_assert_true(store_channels(f->store, NULL, true, &entries, NULL) && store_channels_verify(f->store, problems, NULL));
    g_assert_cmpuint(entries->len, ==, version == 2 ? 1 : 0);
    g_assert_cmpuint(problems->len, ==, 0);
}

int main(int argc, char **argv)
{
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn, data) g_test_add("/journal/" name, StoreFixture, data, store_fixture_setup, fn, store_fixture_teardown)
    ADD("appended-records-come-back", test_replay, NULL);
    ADD("epochs-rise", test_epochs_rise, NULL);
    ADD("tampering-is-found", test_tampering, NULL);
    ADD("fsck-checks-chains", test_fsck_finds_it, NULL);
    ADD("second-writer-is-refused", test_two_writers, NULL);
    ADD("waiting-ends-with-the-holder", test_waiting, NULL);
    ADD("waiting-for-a-lost-file", test_waiting_for_a_lost_file, NULL);
    ADD("stale-epoch-is-refused", test_stale_epoch, NULL);
    ADD("bad-input-changes-nothing", test_bad_input, NULL);
    ADD("killed-between-records", test_crash, NULL);
    ADD("ten-thousand-records", test_speed, NULL);
    ADD("held-images-stay", test_holds, NULL);
    ADD("version-1-is-upgraded", test_upgrade, GINT_TO_POINTER(1));
    ADD("version-2-is-upgraded", test_upgrade, GINT_TO_POINTER(2));
    return g_test_run();
}
