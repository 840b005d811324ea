/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mmdebstrap as a child: its tar stream is read by the calling thread while a second thread waits for the process and
 * reads what it says. Two threads, because either side may be the one that stops first:
 *
 *   mmdebstrap fails       -> the stream ends early; what mmdebstrap said is the error to show
 *   reading fails          -> the rest is drained, so that mmdebstrap ends well and the reader's error is shown
 *   no space left, Ctrl-C  -> the stream is closed at once; mmdebstrap ends by its broken pipe or our signal
 */
#include "baker/source-mmdebstrap.h"

#include "base/error.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/process.h"
#include "base/scope.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define COMPLAINTS_MAX 3
#define RESOLVED_MAX 20000

/* What a run says, digested line by line. */
typedef struct Said {
    GPtrArray *complaints; /* "E:" lines that tell a cause */
    GPtrArray *resolved;   /* of a simulation */
    Progress *progress;    /* NULL while simulating */
} Said;

static void said_init(Said *said)
{
    said->complaints = g_ptr_array_new_with_free_func(g_free);
    said->resolved = g_ptr_array_new_with_free_func(g_free);
    said->progress = NULL;
}

static void said_clear(Said *said)
{
    g_ptr_array_unref(said->complaints);
    g_ptr_array_unref(said->resolved);
    progress_free(said->progress);
}

/* mmdebstrap wraps apt's sentence in its own, twice; the first is the one that helps. */
static bool tells_a_cause(const char *line)
{
    return !strstr(line, " failed to run") && !strstr(line, "setup failed") && !strstr(line, "apt-get ") &&
           !strstr(line, "Sub-process") && !strstr(line, "received signal");
}

static void take_complaint(Said *said, const char *text)
{
    for (guint i = 0; i < said->complaints->len; i++)
        if (strcmp(said->complaints->pdata[i], text) == 0)
            return;
    if (said->complaints->len < COMPLAINTS_MAX)
        g_ptr_array_add(said->complaints, printable_line(text));
}

/* "Inst tzdata (2026b-0+deb12u1 Debian:12.15/oldstable [all])" */
static void take_inst(Said *said, const char *line)
{
    char name[128], version[128];
    const char *open = strrchr(line, '['), *close = open ? strchr(open, ']') : NULL;

    if (!close || said->resolved->len >= RESOLVED_MAX || sscanf(line, "Inst %127s (%127s ", name, version) != 2)
        return;
    g_ptr_array_add(said->resolved, g_strdup_printf("%s %s %.*s", name, version, (int)(close - open - 1), open + 1));
}

static void take_line(const char *line, bool is_stderr, void *arg)
{
    Said *said = arg;

    if (g_str_has_prefix(line, "E: ") && tells_a_cause(line))
        take_complaint(said, line + 3);
    else if (g_str_has_prefix(line, "Inst "))
        take_inst(said, line);
    if (g_str_has_prefix(line, "I: ") && said->progress) {
        progress_add(said->progress, 1);
        log_verbose("bootstrap: %s", line + 3);
    } else {
        trace("baker.bootstrap", "%s", line);
    }
}

static bool complain(const Said *said, const Mmdebstrap *spec, int code, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (guint i = 0; i < said->complaints->len; i++)
        g_string_append_printf(text, "%s%s", i ? "; " : "", (char *)said->complaints->pdata[i]);
    if (text->len == 0)
        g_string_append_printf(text, "mmdebstrap ended with exit code %d (KILN_TRACE=baker.bootstrap shows what it said)",
                               code);
    while (text->len && text->str[text->len - 1] == '.')
        g_string_truncate(text, text->len - 1);
    return fail(error, "cannot bootstrap '%s': %s", spec->suite, text->str);
}

/* What dpkg knows of the package, without Debian's revision: asking the program itself costs 0.3 s of Perl at every bake. */
static bool version_of_package(char **ret)
{
    const char *const argv[] = {"dpkg-query", "-W", "-f", "${Version}", "mmdebstrap", NULL};
    g_autofree char *text = NULL;

    if (!process_capture(argv, 4096, &text, NULL) || !*g_strstrip(text))
        return false;
    *ret = g_strndup(text, strcspn(text, "-"));
    return true;
}

bool mmdebstrap_version(char **ret, GError **error)
{
    const char *const argv[] = {"mmdebstrap", "--version", NULL};
    g_autofree char *text = NULL;
    char *space;

    if (!process_have("mmdebstrap"))
        return fail(error, "bootstrap sources need the program mmdebstrap; install the package of that name");
    if (version_of_package(ret))
        return true;
    if (!process_capture(argv, 4096, &text, error))
        return false;
    space = strrchr(g_strstrip(text), ' ');
    *ret = g_strdup(space ? space + 1 : text);
    return true;
}

static char **command(const Mmdebstrap *spec, bool simulate)
{
    GPtrArray *argv = g_ptr_array_new();
    g_autofree char *include = g_strjoinv(",", (char **)spec->packages);

    g_ptr_array_add(argv, g_strdup("mmdebstrap"));
    g_ptr_array_add(argv, g_strdup("--mode=unshare"));
    if (simulate) {
        g_ptr_array_add(argv, g_strdup("--simulate"));
        g_ptr_array_add(argv, g_strdup("--verbose"));
    } else {
        g_ptr_array_add(argv, g_strdup("--format=tar"));
    }
    g_ptr_array_add(argv, g_strconcat("--variant=", spec->variant, NULL));
    g_ptr_array_add(argv, g_strconcat("--architectures=", spec->architecture, NULL));
    if (*include)
        g_ptr_array_add(argv, g_strconcat("--include=", include, NULL));
    g_ptr_array_add(argv, g_strdup(spec->suite));
    g_ptr_array_add(argv, g_strdup("-"));
    for (const char *const *line = spec->lines; *line; line++)
        g_ptr_array_add(argv, g_strdup(*line));
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(argv, FALSE);
}

static char **environment(const Mmdebstrap *spec, const char *tmpdir)
{
    g_autofree char *epoch = g_strdup_printf("%" G_GINT64_FORMAT, spec->epoch);
    char **env = g_get_environ();

    env = g_environ_setenv(env, "SOURCE_DATE_EPOCH", epoch, TRUE);
    env = g_environ_setenv(env, "TMPDIR", tmpdir, TRUE);
    env = g_environ_setenv(env, "LC_ALL", "C.UTF-8", TRUE);
    env = g_environ_setenv(env, "TZ", "UTC", TRUE);
    env = g_environ_unsetenv(env, "LANGUAGE");
    return g_environ_unsetenv(env, "APT_CONFIG");
}

/*
 * mmdebstrap's working folder. Not below the store: the user namespace's root must be able to walk to it, and stores
 * are private folders. Its lock is held as long as its owner lives, so that the next bootstrap finds what a killed
 * one left.
 */
typedef struct Scratch {
    char *path;
    int lock;
} Scratch;

#define SCRATCH_PREFIX "kiln-bootstrap-"

static int scratch_lock(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        scope_close_fd(&fd);
        return -1;
    }
    return fd;
}

/* What a killed mmdebstrap leaves belongs to ids of its namespace; only from inside one may an ordinary user remove it. */
static void scratch_remove(Scratch *scratch)
{
    g_autoptr(GDir) dir = g_dir_open(scratch->path, 0, NULL);

    for (const char *name = dir && geteuid() != 0 ? g_dir_read_name(dir) : NULL; name; name = g_dir_read_name(dir)) {
        g_autofree char *inside = g_build_filename(scratch->path, name, NULL);
        const char *const argv[] = {"mmdebstrap", "--unshare-helper", "rm", "-rf", inside, NULL};

        (void)process_capture(argv, 4096, NULL, NULL); /* file_remove_tree says what could not be removed */
    }
    if (!file_remove_tree(AT_FDCWD, scratch->path, NULL))
        log_warning("the folder '%s' could not be removed; it is not needed any more", scratch->path);
    scope_close_fd(&scratch->lock);
    g_clear_pointer(&scratch->path, g_free);
}

/* Folders of ours that nobody holds any more. */
static void scratch_sweep(void)
{
    g_autoptr(GDir) dir = g_dir_open(g_get_tmp_dir(), 0, NULL);

    for (const char *name = dir ? g_dir_read_name(dir) : NULL; name; name = g_dir_read_name(dir)) {
        Scratch old = {.path = NULL, .lock = -1};
        struct stat st;

        if (!g_str_has_prefix(name, SCRATCH_PREFIX))
            continue;
        old.path = g_build_filename(g_get_tmp_dir(), name, NULL);
        /* A minute: one that is being made is not locked yet. */
        if (lstat(old.path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && st.st_mtime + 60 < time(NULL))
            old.lock = scratch_lock(old.path);
        if (old.lock >= 0)
            scratch_remove(&old);
        g_free(old.path);
    }
}

static bool scratch_make(Scratch *ret, GError **error)
{
    g_autofree char *path = g_build_filename(g_get_tmp_dir(), SCRATCH_PREFIX "XXXXXX", NULL);

    scratch_sweep();
    if (!g_mkdtemp_full(path, 0711))
        return fail_errno(error, "make a folder in '%s'", g_get_tmp_dir());
    ret->lock = scratch_lock(path);
    if (ret->lock < 0 || fchmod(ret->lock, 0711) < 0) {
        scope_close_fd(&ret->lock);
        return fail_errno(error, "open '%s' to mmdebstrap", path);
    }
    ret->path = g_steal_pointer(&path);
    return true;
}

static int compare_texts(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool mmdebstrap_resolve(const Mmdebstrap *spec, char ***ret, GError **error)
{
    Said said;
    g_auto(GStrv) argv = command(spec, true);
    g_auto(GStrv) env = NULL;
    Scratch scratch = {.path = NULL, .lock = -1};
    int code = 0;
    bool ok;

    if (!scratch_make(&scratch, error))
        return false;
    env = environment(spec, scratch.path);
    said_init(&said);
    ok = process_run(&(ProcessSpec){.argv = (const char *const *)argv, .env = (const char *const *)env,
                                    .on_line = take_line, .arg = &said},
                     &code, error);
    scratch_remove(&scratch);
    if (ok && (code != 0 || said.resolved->len == 0))
        ok = complain(&said, spec, code, error);
    if (ok) {
        g_ptr_array_sort(said.resolved, compare_texts);
        g_ptr_array_add(said.resolved, NULL);
        *ret = (char **)g_ptr_array_steal(said.resolved, NULL);
    }
    said_clear(&said);
    return ok;
}

/* The waiting thread: owns the writing end of the pipe while the child may need it. */
typedef struct Waiter {
    ProcessSpec spec;
    int code;
    bool ok;
    GError *error;
} Waiter;

static gpointer wait_thread(gpointer arg)
{
    Waiter *waiter = arg;

    waiter->ok = process_run(&waiter->spec, &waiter->code, &waiter->error);
    (void)close(waiter->spec.stdout_fd); /* now the reader sees the end */
    return NULL;
}

static void drain(int fd)
{
    char buf[64 * 1024];

    while (!interrupt_requested() && read(fd, buf, sizeof(buf)) > 0) {
    }
}

static bool outcome(const Mmdebstrap *spec, const Said *said, Waiter *waiter, bool read_ok, GError **read_error,
                    GError **error)
{
    if (!waiter->ok) {
        g_propagate_error(error, g_steal_pointer(&waiter->error));
        return false;
    }
    if (!read_ok && g_error_matches(*read_error, KILN_ERROR, KILN_ERROR_NO_SPACE)) {
        g_propagate_error(error, g_steal_pointer(read_error));
        return false;
    }
    if (waiter->code != 0)
        return complain(said, spec, waiter->code, error);
    if (!read_ok)
        g_propagate_error(error, g_steal_pointer(read_error));
    return read_ok;
}

bool mmdebstrap_run(const Mmdebstrap *spec, bool (*read)(int fd, void *arg, GError **error), void *arg, GError **error)
{
    Said said;
    g_auto(GStrv) argv = command(spec, false);
    g_auto(GStrv) env = NULL;
    g_autoptr(GError) read_error = NULL;
    Scratch scratch = {.path = NULL, .lock = -1};
    int pipes[2];
    bool read_ok, ok;

    if (!scratch_make(&scratch, error))
        return false;
    if (pipe2(pipes, O_CLOEXEC) < 0) {
        fail_errno(error, "make a pipe");
        scratch_remove(&scratch);
        return false;
    }
    env = environment(spec, scratch.path);
    said_init(&said);
    said.progress = progress_new("bootstrap", 14, false); /* lines a successful run prints */
    Waiter waiter = {.spec = {.argv = (const char *const *)argv, .env = (const char *const *)env,
                              .stdout_fd = pipes[1], .on_line = take_line, .arg = &said}};
    GThread *thread = g_thread_new("mmdebstrap", wait_thread, &waiter);

    read_ok = read(pipes[0], arg, &read_error);
    if (read_ok || !g_error_matches(read_error, KILN_ERROR, KILN_ERROR_NO_SPACE))
        drain(pipes[0]); /* also a read that went well leaves the archive's padding */
    (void)close(pipes[0]);
    g_thread_join(thread);
    scratch_remove(&scratch);
    ok = outcome(spec, &said, &waiter, read_ok, &read_error, error);
    if (ok)
        progress_done(said.progress);
    g_clear_error(&waiter.error);
    said_clear(&said);
    return ok;
}
