/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests: the promises of provisioner/guest.h over every guest that needs no virtual machine, and the conversation with
 * the runner when the other side is broken or hostile.
 *
 * "runner" is the program that also runs in the appliance, on a folder of this machine and in namespaces; where those may not be
 * made it is skipped. tests/guest/guest-session.sh does the same in a real appliance.
 */
#include "baker/guest-channel.h"
#include "baker/guest-open.h"
#include "base/error.h"
#include "base/file.h"
#include "base/scope.h"
#include "provisioner/runner/protocol.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

typedef struct Fixture {
    char *folder;
    Guest *guest;
    GString *out;
} Fixture;

/* --- a guest of a runner on this machine --- */

typedef struct RunnerGuest {
    GuestOverChannel over;
    pid_t pid;
    bool stopped;
} RunnerGuest;

static char *runner_path(void)
{
    return g_build_filename(file_program_dir(), "..", "kiln-runner", NULL);
}

static bool namespaces_work(void)
{
    int status = -1;
    pid_t pid = fork();

    if (pid == 0)
        _exit(unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET) < 0 ||
              mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
              mount("tmpfs", "/tmp", "tmpfs", 0, NULL) < 0);
    (void)waitpid(pid, &status, 0);
    return status == 0;
}

static pid_t spawn_runner(const char *folder, int fd)
{
    g_autofree char *runner = runner_path(), *number = g_strdup_printf("%d", fd);
    pid_t pid = fork();

    if (pid == 0) {
        (void)fcntl(fd, F_SETFD, 0);
        (void)execl(runner, runner, "--host-test", number, folder, NULL);
        _exit(127);
    }
    return pid;
}

static void runner_free(Guest *guest)
{
    RunnerGuest *runner = (RunnerGuest *)guest;

    guest_channel_free(runner->over.channel); /* the runner ends with its port */
    g_assert_cmpint(waitpid(runner->pid, NULL, 0), ==, runner->pid);
    g_free(runner);
}

static bool runner_shutdown(Guest *guest, GError **error)
{
    bool good = guest_channel_quit(((RunnerGuest *)guest)->over.channel, error);

    runner_free(guest);
    return good;
}

static bool runner_checkpoint(Guest *guest, bool (*seal)(void *arg, GError **error), void *arg,
                              GError **error)
{
    GuestChannel *channel = ((RunnerGuest *)guest)->over.channel;

    return guest_channel_freeze(channel, false, error) && seal(arg, error) &&
           guest_channel_thaw(channel, error);
}

static const GuestOps runner_ops = {
    .name = "runner",
    GUEST_CHANNEL_OPS,
    .begin = guest_channel_begin,
    .end = guest_channel_end,
    .checkpoint = runner_checkpoint,
    .shutdown = runner_shutdown,
    .kill = runner_free,
};

/* The root gets the host's programs, so that there is something to run. */
static void furnish(const char *folder)
{
    static const char *const links[] = {"bin", "sbin", "lib", "lib64"};

    for (size_t i = 0; i < G_N_ELEMENTS(links); i++) {
        g_autofree char *link = g_build_filename(folder, links[i], NULL),
                        *target = g_strdup_printf("usr/%s", links[i]);

        g_assert_cmpint(symlink(target, link), ==, 0);
    }
}

static bool runner_start(const char *folder, Guest **ret, GError **error)
{
    RunnerGuest *runner = g_new0(RunnerGuest, 1);
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    runner->over.base.ops = &runner_ops;
    runner->pid = spawn_runner(folder, pair[1]);
    (void)close(pair[1]);
    runner->over.channel = guest_channel_new(pair[0], NULL, NULL);
    *ret = &runner->over.base;
    return guest_channel_hello(runner->over.channel, 20, error);
}

static bool runner_open(const char *folder, Guest **ret, GError **error)
{
    g_autofree char *usr = g_build_filename(folder, "usr", NULL);

    furnish(folder);
    g_assert_cmpint(mkdir(usr, 0755), ==, 0);
    /* In this process's own mount namespace, see main(); read-only, because it is the machine's. */
    g_assert_cmpint(mount("/usr", usr, NULL, MS_BIND, NULL), ==, 0);
    g_assert_cmpint(mount(NULL, usr, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), ==, 0);
    return runner_start(folder, ret, error);
}

static void close_folder(Fixture *f)
{
    g_autofree char *usr = g_build_filename(f->folder, "usr", NULL);

    (void)umount2(usr, MNT_DETACH);
    g_assert_true(file_remove_tree(AT_FDCWD, f->folder, NULL));
    g_string_free(f->out, TRUE);
    g_free(f->folder);
}

typedef bool OpenFn(const char *folder, Guest **ret, GError **error);

static void fixture_open(Fixture *f, gconstpointer open)
{
    g_autoptr(GError) error = NULL;

    f->folder = g_strdup("guest-XXXXXX");
    g_assert_nonnull(g_mkdtemp_full(f->folder, 0755));
    f->out = g_string_new(NULL);
    f->guest = NULL;
    if (!((OpenFn *)open)(f->folder, &f->guest, &error))
        g_error("%s", error->message);
}

static void fixture_close(Fixture *f, gconstpointer open)
{
    g_autoptr(GError) error = NULL;

    if (!f->guest->ops->shutdown(f->guest, &error))
        g_error("%s", error->message);
    close_folder(f);
}

/* --- the port's promises --- */

static void on_line(const char *line, bool is_stderr, void *arg)
{
    g_string_append_printf(arg, "%s%s\n", is_stderr ? "E:" : "", line);
}

static void begin(Fixture *f, double timeout)
{
    GuestStep step = {
        .name = "step 'x'", .clock = 1000000000, .timeout = timeout, .on_line = on_line, .arg = f->out};
    g_autoptr(GError) error = NULL;

    if (!f->guest->ops->begin(f->guest, &step, &error))
        g_error("%s", error->message);
}

static void end(Fixture *f)
{
    g_autoptr(GError) error = NULL;

    if (!f->guest->ops->end(f->guest, &error))
        g_error("%s", error->message);
}

static int sh(Fixture *f, const char *script)
{
    const char *argv[] = {"sh", "-c", script, NULL}, *env[] = {"A=from the step", NULL};
    GuestExec exec = {.argv = argv, .env = env};
    g_autoptr(GError) error = NULL;
    int code = -1;

    g_string_truncate(f->out, 0);
    if (!f->guest->ops->exec(f->guest, &exec, &code, &error))
        g_error("%s", error->message);
    return code;
}

static int memory_fd(const char *text)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    g_assert_cmpint(write(fd, text, strlen(text)), ==, (gssize)strlen(text));
    g_assert_cmpint(lseek(fd, 0, SEEK_SET), ==, 0);
    return fd;
}

static char *memory_text(int fd)
{
    char *text = g_malloc0(1 << 20);

    g_assert_cmpint(pread(fd, text, (1 << 20) - 1, 0), >=, 0);
    return text;
}

static void test_output_comes_by_lines(Fixture *f, gconstpointer open)
{
    begin(f, 0);
    g_assert_cmpint(sh(f, "echo one; printf 'two\\nthree'"), ==, 0);
    g_assert_cmpstr(f->out->str, ==, "one\ntwo\nthree\n");
    g_assert_cmpint(sh(f, "echo bad >&2"), ==, 0);
    g_assert_cmpstr(f->out->str, ==, "E:bad\n");
    end(f);
}

static void take_output(const void *data, size_t size, bool is_stderr, void *arg)
{
    GString **streams = arg;

    g_string_append_len(streams[is_stderr], data, (gssize)size);
}

static void test_output_may_be_taken_as_it_is(Fixture *f, gconstpointer open)
{
    const char *argv[] = {"sh", "-c", "printf 'one\\n two\\n'; echo bad >&2", NULL};
    g_autoptr(GString) out = g_string_new(NULL), err = g_string_new(NULL);
    GString *streams[] = {out, err};
    const GuestExec exec = {.argv = argv, .output = take_output, .arg = streams};
    g_autoptr(GError) error = NULL;
    int code = -1;

    begin(f, 0);
    g_string_truncate(f->out, 0);
    g_assert_true(f->guest->ops->exec(f->guest, &exec, &code, &error));
    g_assert_cmpstr(out->str, ==, "one\n two\n");
    g_assert_cmpstr(err->str, ==, "bad\n");
    g_assert_cmpstr(f->out->str, ==, ""); /* the step hears nothing of it */
    end(f);
}

static void test_first_process_is_an_init(Fixture *f, gconstpointer open)
{
    begin(f, 0);
    g_assert_cmpint(sh(f, "cat /proc/1/comm"), ==, 0);
    if (strcmp(f->out->str, "init\n") != 0)
        g_assert_cmpstr(f->out->str, ==, "systemd\n");
    end(f);
}

static void test_exit_codes(Fixture *f, gconstpointer open)
{
    begin(f, 0);
    g_assert_cmpint(sh(f, "exit 0"), ==, 0);
    g_assert_cmpint(sh(f, "exit 37"), ==, 37);
    g_assert_cmpint(sh(f, "kill -KILL $$"), ==, 137);
    end(f);
}

static void test_environment_and_stdin(Fixture *f, gconstpointer open)
{
    begin(f, 0);
    g_assert_cmpint(sh(f, "echo $A; cat; echo end"), ==, 0);
    g_assert_cmpstr(f->out->str, ==, "from the step\nend\n");
    end(f);
}

static void test_unknown_program_is_an_error(Fixture *f, gconstpointer open)
{
    const char *argv[] = {"/no/such/program", NULL};
    GuestExec exec = {.argv = argv};
    g_autoptr(GError) error = NULL;
    int code;

    begin(f, 0);
    g_assert_false(f->guest->ops->exec(f->guest, &exec, &code, &error));
    g_assert_nonnull(strstr(error->message, "/no/such/program"));
    g_assert_cmpint(sh(f, "exit 5"), ==, 5); /* and the step goes on */
    end(f);
}

static void test_time_limit(Fixture *f, gconstpointer open)
{
    const char *argv[] = {"sh", "-c", "sleep 30", NULL};
    GuestExec exec = {.argv = argv};
    g_autoptr(GError) error = NULL;
    gint64 start = g_get_monotonic_time();
    int code;

    begin(f, 0.3);
    g_assert_false(f->guest->ops->exec(f->guest, &exec, &code, &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_TIMEOUT);
    g_assert_cmpint(g_get_monotonic_time() - start, <, 5 * G_USEC_PER_SEC);
    end(f);
    begin(f, 0);
    g_assert_cmpint(sh(f, "exit 0"), ==, 0);
    end(f);
}

static void test_put_and_get(Fixture *f, gconstpointer open)
{
    static const GuestFile meta = {.mode = 0640, .mtime = 1234567890};
    g_autofree char *big = g_strnfill(300000, 'x');
    auto_fd int in = memory_fd(big), again = memory_fd("short"), out = memory_fd(""), out2 = memory_fd("");
    g_autofree char *back = NULL, *back2 = NULL;
    g_autoptr(GError) error = NULL;
    GuestFile got;
    char type;

    begin(f, 0);
    g_assert_true(f->guest->ops->put(f->guest, in, "/file", &meta, &error));
    g_assert_true(f->guest->ops->get(f->guest, "/file", out, 0, &error));
    back = memory_text(out);
    g_assert_cmpstr(back, ==, big);
    g_assert_true(f->guest->ops->stat(f->guest, "/file", &type, &got, &error));
    g_assert_cmpint(type, ==, 'f');
    g_assert_cmpint(got.mode, ==, 0640);
    g_assert_cmpint(got.mtime, ==, 1234567890);
    g_assert_true(
        f->guest->ops->put(f->guest, again, "/file", &meta, &error)); /* replaces, also what is longer */
    g_assert_true(f->guest->ops->get(f->guest, "/file", out2, 5, &error));
    back2 = memory_text(out2);
    g_assert_cmpstr(back2, ==, "short");
    end(f);
}

static void test_get_is_limited(Fixture *f, gconstpointer open)
{
    auto_fd int in = memory_fd("12345"), out = memory_fd("");
    g_autoptr(GError) error = NULL;

    begin(f, 0);
    g_assert_true(f->guest->ops->put(f->guest, in, "/file", NULL, &error));
    g_assert_false(f->guest->ops->get(f->guest, "/file", out, 4, &error));
    g_assert_nonnull(error);
    end(f);
}

static void test_only_regular_files_are_read_and_written(Fixture *f, gconstpointer open)
{
    g_autoptr(GError) no_file = NULL, folder = NULL, fifo = NULL, parent = NULL, error = NULL;
    auto_fd int in = memory_fd("x"), out = memory_fd("");

    begin(f, 0);
    g_assert_true(f->guest->ops->mkdir(f->guest, "/d", NULL, &error));
    g_assert_cmpint(sh(f, "mkfifo ${KILN_FAKE_ROOT:-}/fifo"), ==, 0);
    g_assert_false(f->guest->ops->get(f->guest, "/absent", out, 0, &no_file));
    g_assert_error(no_file, KILN_ERROR, KILN_ERROR_NOT_FOUND);
    g_assert_false(f->guest->ops->get(f->guest, "/fifo", out, 0, &fifo));
    g_assert_false(f->guest->ops->put(f->guest, in, "/d", NULL, &folder));
    g_assert_false(f->guest->ops->put(f->guest, in, "/absent/file", NULL, &parent));
    g_assert_cmpint(sh(f, "exit 0"), ==, 0);
    end(f);
}

static void test_folders(Fixture *f, gconstpointer open)
{
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) names = NULL;
    char type = 'x';
    GuestFile got;

    begin(f, 0);
    g_assert_true(f->guest->ops->mkdir(f->guest, "/a/b/c", &(GuestFile){.mode = 0711, .mtime = 5}, &error));
    g_assert_true(f->guest->ops->mkdir(f->guest, "/a/b", &(GuestFile){.mode = 0700}, &error));
    g_assert_true(f->guest->ops->stat(f->guest, "/a/b/c", &type, &got, &error));
    g_assert_cmpint(got.mode, ==, 0711);
    g_assert_true(f->guest->ops->stat(f->guest, "/a/b", &type, &got, &error));
    g_assert_cmpint(got.mode, ==, 0755); /* it existed */
    g_assert_true(f->guest->ops->symlink(f->guest, "nowhere", "/a/z", &error));
    g_assert_true(f->guest->ops->symlink(f->guest, "b", "/a/z", &error)); /* replaces */
    g_assert_true(f->guest->ops->list(f->guest, "/a", &names, &error));
    g_assert_cmpint(g_strv_length(names), ==, 2);
    g_assert_cmpstr(names[0], ==, "b");
    g_assert_cmpstr(names[1], ==, "z");
    g_assert_true(f->guest->ops->stat(f->guest, "/a/z", &type, NULL, &error));
    g_assert_cmpint(type, ==, 'd');                                 /* links are followed */
    g_assert_true(f->guest->ops->remove(f->guest, "/a/z", &error)); /* but not by remove */
    g_assert_true(f->guest->ops->stat(f->guest, "/a/b/c", &type, NULL, &error));
    g_assert_cmpint(type, ==, 'd');
    g_assert_true(f->guest->ops->remove(f->guest, "/a", &error));
    g_assert_true(f->guest->ops->remove(f->guest, "/a", &error));
    g_assert_true(f->guest->ops->stat(f->guest, "/a", &type, NULL, &error));
    g_assert_cmpint(type, ==, 0);
    g_assert_false(f->guest->ops->remove(f->guest, "/", &error));
    end(f);
}

static bool seal(void *arg, GError **error)
{
    ++*(int *)arg;
    return true;
}

static void test_checkpoint_seals_once(Fixture *f, gconstpointer open)
{
    g_autoptr(GError) error = NULL;
    int sealed = 0;

    begin(f, 0);
    end(f);
    g_assert_true(f->guest->ops->checkpoint(f->guest, seal, &sealed, &error));
    g_assert_cmpint(sealed, ==, 1);
    begin(f, 0);
    end(f);
}

/* --- what only a real runner promises --- */

static void test_runner_isolates(Fixture *f, gconstpointer open)
{
    begin(f, 0);
    g_assert_cmpint(
        sh(f, "hostname 2>/dev/null || cat /proc/sys/kernel/hostname; pwd; umask; ls -A /tmp; echo $$"), ==,
        0);
    g_assert_true(g_str_has_prefix(f->out->str, "localhost\n/\n0022\n"));
    g_assert_cmpint(sh(f, "echo x > /run/x && echo x > /tmp/x && ls /sys/class/net"), ==, 0);
    g_assert_cmpstr(f->out->str, ==, "lo\n");
    end(f);
    begin(f, 0);
    g_assert_cmpint(sh(f, "ls /run/x /tmp/x 2>/dev/null"), ==, 0 + 2);
    g_assert_cmpstr(f->out->str, ==, "/tmp/x\n"); /* uploads wait there for the next step */
    end(f);
}

static void test_runner_ends_daemons(Fixture *f, gconstpointer open)
{
    g_autofree char *tick = g_build_filename(f->folder, "tick", NULL);
    struct stat before, after;

    begin(f, 0);
    g_assert_cmpint(sh(f, "setsid sh -c 'while :; do echo x >> /tick; sleep 0.01; done' & sleep 0.1"), ==, 0);
    end(f);
    g_assert_cmpint(stat(tick, &before), ==, 0);
    g_usleep(100000);
    g_assert_cmpint(stat(tick, &after), ==, 0);
    g_assert_cmpint(before.st_size, ==, after.st_size);
}

static void test_runner_leaves_no_trace(Fixture *f, gconstpointer open)
{
    struct stat before, after;
    g_autoptr(GDir) dir = NULL;
    int n = 0;

    g_assert_cmpint(stat(f->folder, &before), ==, 0);
    g_usleep(20000);
    begin(f, 0);
    end(f);
    g_assert_cmpint(stat(f->folder, &after), ==, 0);
    g_assert_cmpint(before.st_mtim.tv_sec, ==, after.st_mtim.tv_sec);
    g_assert_cmpint(before.st_mtim.tv_nsec, ==, after.st_mtim.tv_nsec);
    dir = g_dir_open(f->folder, 0, NULL);
    while (g_dir_read_name(dir))
        n++;
    g_assert_cmpint(n, ==, 5); /* usr and four links: no /dev, /proc, /run, /sys, /tmp */
}

static void test_runner_passes_much_output(Fixture *f, gconstpointer open)
{
    begin(f, 0);
    g_assert_cmpint(sh(f, "head -c 3000000 /dev/zero | tr '\\0' x"), ==, 0);
    g_assert_cmpint(f->out->len, ==, 3000000 + (3000000 + 65535) / 65536); /* one long line, in pieces */
    end(f);
}

/* --- walks --- */

static bool walk_entry(const GuestEntry *entry, void *arg, GError **error)
{
    (void)error;
    g_string_append_printf(arg, "\n%s %o%s", entry->path, entry->mode, entry->again ? " again" : "");
    if (*entry->target)
        g_string_append_printf(arg, " -> %s", entry->target);
    if (S_ISREG(entry->mode))
        g_string_append_printf(arg, " %u", (unsigned)entry->size);
    return true;
}

static bool walk_xattr(const char *name, const void *value, size_t size, void *arg, GError **error)
{
    (void)error;
    if (g_str_has_prefix(name, "user."))
        g_string_append_printf(arg, " %s=%.*s", name, (int)size, (const char *)value);
    return true;
}

static bool walk_piece(uint64_t offset, const void *data, size_t size, void *arg, GError **error)
{
    (void)error;
    g_string_append_printf(arg, " @%u:%.*s", (unsigned)offset, (int)size, (const char *)data);
    return true;
}

/* Parents before children, a group's content once, holes left out; order is the file system's. */
static void test_runner_walks(Fixture *f, gconstpointer open)
{
    g_autofree char *script = g_strdup("umask 022; chmod 755 w; cd w && mkdir d && printf one > d/one && ln d/one d/two && chmod 4755 d/one && mkfifo d/p && "
                                       "truncate -s 1M d/s && printf end >> d/s && ln -s nowhere l && { setfattr -n user.k -v v d/s 2>/dev/null || :; }");
    const char *argv[] = {"sh", "-c", script, NULL};
    GuestWalk walk = {true, walk_entry, walk_xattr, walk_piece, f->out};
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) lines = NULL;
    Guest *guest = NULL;
    int status = -1;

    g_assert_cmpint(mkdir("w", 0755), ==, 0); /* without the machine's programs in it */
    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL));
    g_assert_cmpint(status, ==, 0);
    g_assert_true(runner_start("w", &guest, NULL));
    if (!guest->ops->walk(guest, &walk, &error))
        g_error("%s", error->message);
    g_assert_true(guest->ops->shutdown(guest, NULL));
    g_assert_cmpint(strstr(f->out->str, "\nd/s 100644 1048579 user.k=v") != NULL, ==, getxattr("w/d/s", "user.k", NULL, 0) == 1); /* not every file system has them */
    lines = g_strsplit(f->out->str, "\n", -1);
    g_assert_cmpuint(g_strv_length(lines), ==, 1 + 1 + 2 + 4); /* before the first; the root; d and l; what is in d */
    g_assert_true(g_str_has_prefix(f->out->str, "\n 40755"));
    g_assert_nonnull(strstr(f->out->str, "\nl 120777 -> nowhere"));
    g_assert_nonnull(strstr(f->out->str, "\nd 40755"));
    g_assert_true(strstr(f->out->str, "\nd 40755") < strstr(f->out->str, "\nd/"));
    g_assert_nonnull(strstr(f->out->str, "\nd/p 10644"));
    g_assert_nonnull(strstr(f->out->str, "\nd/s 100644 1048579"));
    g_assert_nonnull(strstr(f->out->str, " @1048576:end"));
    g_assert_true((strstr(f->out->str, "\nd/one 104755 3 @0:one") != NULL) != (strstr(f->out->str, "\nd/two 104755 3 @0:one") != NULL));
    g_assert_true((strstr(f->out->str, "\nd/one 104755 again 3") != NULL) != (strstr(f->out->str, "\nd/two 104755 again 3") != NULL));
    g_assert_true(file_remove_tree(AT_FDCWD, "w", NULL));
}

/* --- shells --- */

static void see(const void *data, size_t size, void *arg)
{
    g_string_append_len(arg, data, (gssize)size);
}

static void window(unsigned *rows, unsigned *columns, void *arg)
{
    *rows = 33;
    *columns = 77;
}

/* A shell that is fed from @in; what it says is in f->out. */
static int shell_from(Fixture *f, int in, bool terminal, int resized)
{
    static const char *const env[] = {"A=from the step", "TERM=vt100", "PS1=> ", NULL};
    GuestShell shell = {.terminal = terminal, .env = env, .in = in, .resized = resized, .hang_up = 0x1d,
                        .window = window, .write = see, .arg = f->out};
    g_autoptr(GError) error = NULL;
    int code = -1;

    g_string_truncate(f->out, 0);
    if (!f->guest->ops->shell(f->guest, &shell, &code, &error))
        g_error("%s", error->message);
    return code;
}

static int shell(Fixture *f, const char *typed, bool terminal)
{
    auto_fd int in = memory_fd(typed);

    return shell_from(f, in, terminal, -1);
}

static void test_shell_runs_a_script(Fixture *f, gconstpointer open)
{
    begin(f, 0);
    g_assert_cmpint(shell(f, "echo $A\nfalse\ncd /usr\npwd\necho bad >&2\nexit 3\n", false), ==, 3);
    g_assert_nonnull(strstr(f->out->str, "from the step\n/usr\n"));
    g_assert_nonnull(strstr(f->out->str, "E:bad\n"));
    g_assert_cmpint(shell(f, "", false), ==, 0); /* an empty standard input is no reason to wait */
    g_assert_cmpint(sh(f, "exit 4"), ==, 4);
    end(f);
}

/* Whoever sends without listening would wait for ever. */
static void test_shell_passes_much_both_ways(Fixture *f, gconstpointer open)
{
    g_autofree char *much = g_strnfill(2000000, 'x');
    g_autofree char *script = g_strconcat("cat\n", much, "\n", NULL);

    begin(f, 0);
    g_assert_cmpint(shell(f, script, false), ==, 0);
    g_assert_cmpint(strlen(f->out->str), >=, 2000000);
    end(f);
}

static void test_shell_that_ends_first(Fixture *f, gconstpointer open)
{
    g_autofree char *rest = g_strnfill(1000000, '#'), *script = g_strconcat("exit 5\n", rest, "\n", NULL);

    begin(f, 0);
    g_assert_cmpint(shell(f, script, false), ==, 5);
    g_assert_cmpint(sh(f, "echo on"), ==, 0);
    g_assert_cmpstr(f->out->str, ==, "on\n");
    end(f);
}

static void test_shell_has_a_terminal(Fixture *f, gconstpointer open)
{
    int wake[2];

    begin(f, 0);
    /* The end of what is typed hangs up, so the shell is told to end before. */
    g_assert_cmpint(pipe2(wake, O_CLOEXEC), ==, 0);
    g_assert_cmpint(write(wake[1], "tty; stty size; echo $TERM; exit 6\n", 35), ==, 35);
    g_assert_cmpint(shell_from(f, wake[0], true, -1), ==, 6);
    g_assert_nonnull(strstr(f->out->str, "/dev/pts/"));
    g_assert_nonnull(strstr(f->out->str, "33 77"));
    g_assert_nonnull(strstr(f->out->str, "vt100"));
    (void)close(wake[0]);
    (void)close(wake[1]);
    end(f);
}

/* Ctrl-C is the shell's, and ends neither it nor us. */
static void test_shell_takes_ctrl_c(Fixture *f, gconstpointer open)
{
    static const char typed[] = "sleep 100\n";
    int keys[2];

    begin(f, 0);
    g_assert_cmpint(pipe2(keys, O_CLOEXEC), ==, 0);
    if (fork() == 0) {
        g_assert_cmpint(write(keys[1], typed, sizeof typed - 1), ==, sizeof typed - 1);
        g_usleep(700000);
        g_assert_cmpint(write(keys[1], "\3", 1), ==, 1);
        g_usleep(300000);
        g_assert_cmpint(write(keys[1], "exit 7\n", 7), ==, 7);
        g_usleep(2000000); /* the terminal is there all the time */
        _exit(0);
    }
    g_assert_cmpint(shell_from(f, keys[0], true, -1), ==, 7);
    (void)close(keys[0]);
    (void)close(keys[1]);
    end(f);
}

static void test_shell_is_hung_up(Fixture *f, gconstpointer open)
{
    gint64 start = g_get_monotonic_time();

    begin(f, 0);
    g_assert_cmpint(shell(f, "trap '' HUP; sleep 100; \n", true), !=, 0);    /* at the end of what is typed */
    g_assert_cmpint(shell(f, "sleep 100\n\x1d and more\n", true), !=, 0); /* or by the key for it */
    g_assert_cmpint(g_get_monotonic_time() - start, <, 15 * G_USEC_PER_SEC);
    g_assert_cmpint(sh(f, "exit 8"), ==, 8);
    end(f);
}

static void test_runner_quits_in_a_step(Fixture *f, gconstpointer open)
{
    begin(f, 0); /* fixture_close() ends it */
}

/* --- the other side is hostile --- */

typedef struct Hostile {
    int fd;
    bool died;
} Hostile;

static void on_dead(void *arg)
{
    ((Hostile *)arg)->died = true;
}

static void send_frame(int fd, uint32_t length, uint32_t request, uint16_t type, const char *payload,
                       size_t size)
{
    uint8_t raw[WIRE_HEADER_SIZE];

    wire_pack_header(raw, length, request, type);
    g_assert_cmpint(write(fd, raw, sizeof raw), ==, sizeof raw);
    g_assert_cmpint(write(fd, payload, size), ==, (gssize)size);
}

static GuestChannel *hostile_open(Hostile *h)
{
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    h->fd = pair[1];
    h->died = false;
    return guest_channel_new(pair[0], on_dead, h);
}

/* @size bytes of the payload are sent, whatever @length says. */
static void check_hostile(uint32_t length, uint32_t request, uint16_t type, const char *payload, size_t size)
{
    Hostile h;
    g_autoptr(GError) error = NULL, again = NULL;
    GuestOverChannel guest = {.channel = hostile_open(&h)};
    g_auto(GStrv) names = NULL;

    send_frame(h.fd, length, request, type, payload, size);
    (void)shutdown(h.fd, SHUT_WR);
    g_assert_false(guest_channel_list(&guest.base, "/", &names, &error));
    g_assert_nonnull(error);
    g_assert_true(h.died);
    g_assert_false(guest_channel_list(&guest.base, "/", &names, &again));
    guest_channel_free(guest.channel);
    (void)close(h.fd);
}

static void test_hostile_frames_end_the_guest(void)
{
    check_hostile(0, 1, 999, "", 0);                              /* unknown type */
    check_hostile(0, 7, WIRE_OK, "", 0);                          /* not what was asked */
    check_hostile(0xffffffff, 1, WIRE_OK, "", 0);                 /* too long */
    check_hostile(100, 1, WIRE_DATA, "x", 1);                     /* cut short */
    check_hostile(4, 1, WIRE_DATA, "a/b", 4);                     /* no file name */
    check_hostile(1, 1, WIRE_DATA, "a", 1);                       /* name without an end */
    check_hostile(0, 1, WIRE_DATA, "", 0);                        /* for ever nothing */
    check_hostile(5, 1, WIRE_ERR, "\2\0\0\0\xff", 5);             /* error without a text */
    check_hostile(8, 1, WIRE_ERR, "\2\0\0\0\xff\xff\xff\xff", 8); /* text longer than all */
    check_hostile(0, 1, WIRE_BYE, "", 0);                         /* ended */
    check_hostile(6, 1, WIRE_OUTPUT, "\1hello", 6);               /* output without a program */
}

static bool walk_nothing(const GuestEntry *entry, void *arg, GError **error)
{
    (void)arg;
    return strcmp(entry->path, "stop") != 0 || fail(error, "enough");
}

/* A frame of a walk, and then the end of the port. */
static void check_hostile_walk(uint16_t type, const char *payload, size_t size)
{
    Hostile h;
    g_autoptr(GError) error = NULL;
    GuestOverChannel guest = {.channel = hostile_open(&h)};
    GuestWalk walk = {.entry = walk_nothing};

    send_frame(h.fd, (uint32_t)size, 1, type, payload, size);
    (void)shutdown(h.fd, SHUT_WR);
    g_assert_false(guest_channel_walk(&guest.base, &walk, &error));
    g_assert_nonnull(error);
    g_assert_true(h.died);
    guest_channel_free(guest.channel);
    (void)close(h.fd);
}

static void check_hostile_path(const char *path, const char *target)
{
    uint8_t buf[256];
    WireWriter w = {buf, 0, sizeof buf, false};

    wire_put_string(&w, path);
    for (int i = 0; i < 1 + 3 * 4 + 8 + 4 + 2 * 8 + 2 * 4 + 8; i++)
        wire_put_number(&w, 0, 1);
    wire_put_string(&w, target);
    check_hostile_walk(WIRE_ENTRY, (const char *)w.data, w.size);
}

static void test_hostile_walks_end_the_guest(void)
{
    check_hostile_path("../x", "");
    check_hostile_path("/etc", "");
    check_hostile_path("a//b", "");
    check_hostile_path("a/", "");
    check_hostile_path("a/.", "");
    check_hostile_path("stop", "");
    check_hostile_walk(WIRE_ENTRY, "\1\0\0\0a", 5);                   /* cut short */
    check_hostile_walk(WIRE_XATTR, "\1\0\0\0a", 5);                   /* of nothing */
    check_hostile_walk(WIRE_PIECE, "\0\0\0\0\0\0\0\0x", 9);          /* of nothing */
    check_hostile_walk(WIRE_OK, "\7\0\0\0\0\0\0\0", 8);              /* more than was told */
}

static void test_hostile_error_text_is_made_printable(void)
{
    static const char payload[] = "\2\0\0\0\4\0\0\0\033[2J";
    Hostile h;
    g_autoptr(GError) error = NULL;
    GuestOverChannel guest = {.channel = hostile_open(&h)};
    char type;

    send_frame(h.fd, sizeof payload - 1, 1, WIRE_ERR, payload, sizeof payload - 1);
    g_assert_false(guest_channel_stat(&guest.base, "/", &type, NULL, &error));
    g_assert_null(strchr(error->message, '\033'));
    g_assert_false(h.died);
    guest_channel_free(guest.channel);
    (void)close(h.fd);
}

static void test_silence_is_a_timeout(void)
{
    Hostile h;
    g_autoptr(GError) error = NULL;
    GuestChannel *channel = hostile_open(&h);

    g_assert_false(guest_channel_hello(channel, 0.1, &error));
    g_assert_error(error, KILN_ERROR, KILN_ERROR_TIMEOUT);
    g_assert_true(h.died);
    guest_channel_free(channel);
    (void)close(h.fd);
}

static void test_relative_paths_never_leave(void)
{
    Hostile h;
    g_autoptr(GError) error = NULL;
    GuestOverChannel guest = {.channel = hostile_open(&h)};

    g_assert_false(guest_channel_remove(&guest.base, "etc", &error));
    g_assert_false(h.died);
    guest_channel_free(guest.channel);
    (void)close(h.fd);
}

static const struct {
    const char *name;
    void (*run)(Fixture *f, gconstpointer open);
    bool runner_only;
} promises[] = {
    {"output-comes-by-lines", test_output_comes_by_lines, false},
    {"output-may-be-taken-as-it-is", test_output_may_be_taken_as_it_is, false},
    {"first-process-is-an-init", test_first_process_is_an_init, true},
    {"exit-codes", test_exit_codes, false},
    {"environment-and-stdin", test_environment_and_stdin, false},
    {"unknown-program-is-an-error", test_unknown_program_is_an_error, false},
    {"time-limit", test_time_limit, false},
    {"put-and-get", test_put_and_get, false},
    {"get-is-limited", test_get_is_limited, false},
    {"only-regular-files-are-read-and-written", test_only_regular_files_are_read_and_written, false},
    {"folders", test_folders, false},
    {"checkpoint-seals-once", test_checkpoint_seals_once, false},
    {"isolates", test_runner_isolates, true},
    {"ends-daemons", test_runner_ends_daemons, true},
    {"leaves-no-trace", test_runner_leaves_no_trace, true},
    {"passes-much-output", test_runner_passes_much_output, true},
    {"walks", test_runner_walks, true},
    {"quits-in-a-step", test_runner_quits_in_a_step, true},
    {"shell-runs-a-script", test_shell_runs_a_script, true},
    {"shell-passes-much-both-ways", test_shell_passes_much_both_ways, true},
    {"shell-that-ends-first", test_shell_that_ends_first, true},
    {"shell-has-a-terminal", test_shell_has_a_terminal, true},
    {"shell-takes-ctrl-c", test_shell_takes_ctrl_c, true},
    {"shell-is-hung-up", test_shell_is_hung_up, true},
};

static void add_promises(const char *name, OpenFn *open, bool runner)
{
    for (size_t i = 0; i < G_N_ELEMENTS(promises); i++) {
        g_autofree char *path = g_strdup_printf("/guest/%s/%s", name, promises[i].name);

        if (runner || !promises[i].runner_only)
            g_test_add(path, Fixture, open, fixture_open, promises[i].run, fixture_close);
    }
}

int main(int argc, char **argv)
{
    g_autofree char *folder = g_strdup("/tmp/kiln-test-guest-XXXXXX"), *runner = runner_path();
    int status;

    g_test_init(&argc, &argv, NULL);
    g_assert_nonnull(g_mkdtemp(folder));
    g_assert_cmpint(chdir(folder), ==, 0);
    add_promises("fake", guest_fake_open, false);
    /* Mounts of the tests stay in a namespace of our own and vanish with us. */
    if (access(runner, X_OK) == 0 && namespaces_work() && unshare(CLONE_NEWNS) == 0 &&
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
        add_promises("runner", runner_open, true);
    g_test_add_func("/guest/channel/hostile-frames-end-the-guest", test_hostile_frames_end_the_guest);
    g_test_add_func("/guest/channel/hostile-walks-end-the-guest", test_hostile_walks_end_the_guest);
    g_test_add_func("/guest/channel/hostile-error-text-is-made-printable",
                    test_hostile_error_text_is_made_printable);
    g_test_add_func("/guest/channel/silence-is-a-timeout", test_silence_is_a_timeout);
    g_test_add_func("/guest/channel/relative-paths-never-leave", test_relative_paths_never_leave);
    status = g_test_run();
    if (chdir("/") == 0)
        (void)rmdir(folder);
    return status;
}
