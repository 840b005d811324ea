/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real guest, driven from outside: guest-session NBD-SOCKET OFFSET TMPDIR [CASE...]. guest-session.sh makes the disk
 * and looks at what is left. Each CASE is a promise of provisioner/guest.h; without any all are run, but "hang",
 * which waits to be killed or interrupted.
 */
#include "baker/guest-open.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/scope.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

typedef struct Session {
    Guest *guest;
    GString *out; /* lines of the last exec, '\n' after each */
    uint64_t bytes;
    bool keep;
    const char *seal_marker;
} Session;

static void on_line(const char *line, bool is_stderr, void *arg)
{
    Session *s = arg;

    s->bytes += strlen(line) + 1;
    if (s->keep)
        g_string_append_printf(s->out, "%s%s\n", is_stderr ? "E:" : "", line);
}

static void check(bool good, const char *what, GError *error)
{
    if (good)
        return;
    (void)fprintf(stderr, "FAILED: %s: %s\n", what, error ? error->message : "");
    exit(1);
}

#define OK(call)                                                                                             \
    do {                                                                                                     \
        g_autoptr(GError) error = NULL;                                                                      \
        check((call), #call, error);                                                                         \
    } while (0)

static void begin(Session *s, bool network, double timeout)
{
    GuestStep step = {.name = "step",
                      .network = network,
                      .clock = 1600000000,
                      .timeout = timeout,
                      .on_line = on_line,
                      .arg = s};

    OK(s->guest->ops->begin(s->guest, &step, &error));
}

static void end(Session *s)
{
    OK(s->guest->ops->end(s->guest, &error));
}

static int sh(Session *s, const char *script)
{
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    const char *env[] = {"GREETING=hello", "LC_ALL=C.UTF-8", NULL};
    GuestExec exec = {.argv = argv, .env = env};
    int code = -1;

    g_string_truncate(s->out, 0);
    s->keep = true;
    s->bytes = 0;
    OK(s->guest->ops->exec(s->guest, &exec, &code, &error));
    return code;
}

static void expect(Session *s, const char *script, int code, const char *out)
{
    int got = sh(s, script);

    if (got == code && (!out || strcmp(s->out->str, out) == 0))
        return;
    (void)fprintf(stderr, "FAILED: %s: exit %d, wanted %d; output:\n%s", script, got, code, s->out->str);
    exit(1);
}

static void case_exec(Session *s)
{
    begin(s, false, 0);
    expect(s, "echo $GREETING; echo oops >&2; printf tail", 0, NULL);
    check(strstr(s->out->str, "hello\n") && strstr(s->out->str, "E:oops\n") && strstr(s->out->str, "tail\n"),
          s->out->str, NULL);
    expect(s, "exit 3", 3, "");
    expect(s, "kill -TERM $$", 143, "");
    expect(s, "id -u; pwd; umask; hostname; date -u +%Y", 0, "0\n/\n0022\nlocalhost\n2020\n");
    expect(s, "ls /run /tmp; cat /proc/1/comm", 0, NULL);
    expect(s, "cat; echo $?", 0, "0\n");
    expect(s, "ls /sys/class/net", 0, "lo\n");
    expect(s, "/usr/sbin/policy-rc.d; echo $?", 0, "101\n");
    expect(s, "systemctl start cron >/dev/null 2>&1", 0, ""); /* SYSTEMD_OFFLINE: ignored */
    expect(s, "(echo x > /dev/virtio-ports/org.kiln.control.0) 2>/dev/null || echo taken", 0, "taken\n");
    expect(s,
           "echo x > /dev/null && test -c /dev/tty -a -c /dev/urandom && echo a | tee /dev/stderr >/dev/null",
           0, "E:a\n");
    end(s);
}

static void case_overhead(Session *s)
{
    gint64 t0 = g_get_monotonic_time(), t1, t2;

    begin(s, false, 0);
    t1 = g_get_monotonic_time();
    for (int i = 0; i < 10; i++)
        expect(s, ":", 0, "");
    t2 = g_get_monotonic_time();
    end(s);
    (void)printf("begin %.3f s, exec %.3f s, end %.3f s\n", (double)(t1 - t0) / 1e6, (double)(t2 - t1) / 1e7,
                 (double)(g_get_monotonic_time() - t2) / 1e6);
}

static void look_at_folders(Session *s, int64_t mtimes[4])
{
    static const char *const folders[4] = {"/", "/etc", "/usr/sbin", "/usr"};
    GuestFile meta;
    char type;

    for (int i = 0; i < 4; i++) {
        OK(s->guest->ops->stat(s->guest, folders[i], &type, &meta, &error));
        mtimes[i] = meta.mtime;
    }
    OK(s->guest->ops->stat(s->guest, "/usr/sbin/policy-rc.d", &type, NULL, &error));
    check(type == 0, "policy-rc.d stayed after a step", NULL);
}

static void case_no_trace(Session *s)
{
    int64_t before[4], after[4];

    look_at_folders(s, before);
    begin(s, false, 0);
    expect(s, "test -x /usr/sbin/policy-rc.d", 0, "");
    end(s);
    begin(s, true, 0);
    end(s);
    look_at_folders(s, after);
    check(memcmp(before, after, sizeof before) == 0, "an empty step changed a folder", NULL);
}

static void case_timeout(Session *s)
{
    const char *argv[] = {"sh", "-c", "echo start; trap '' TERM; sleep 100", NULL};
    GuestExec exec = {.argv = argv};
    g_autoptr(GError) error = NULL;
    gint64 t0;
    int code;

    begin(s, false, 2);
    t0 = g_get_monotonic_time();
    check(!s->guest->ops->exec(s->guest, &exec, &code, &error) &&
              g_error_matches(error, KILN_ERROR, KILN_ERROR_TIMEOUT),
          "a step past its limit", error);
    (void)printf("stopped after %.2f s: %s\n", (double)(g_get_monotonic_time() - t0) / 1e6, error->message);
    end(s);
}

static void case_daemon(Session *s)
{
    begin(s, false, 0);
    expect(s, "setsid sh -c 'while :; do echo x >> /root/tick; sleep 0.05; done' >/dev/null 2>&1 & sleep 0.5",
           0, "");
    end(s);
    begin(s, false, 0);
    expect(s,
           "test -s /root/tick || exit 1; a=$(wc -c < /root/tick); sleep 0.5; b=$(wc -c < /root/tick); rm "
           "/root/tick; test $a = $b",
           0, "");
    end(s);
}

static void case_output(Session *s)
{
    const char *argv[] = {
        "sh", "-c",
        "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 200000000",
        NULL};
    GuestExec exec = {.argv = argv};
    gint64 t0 = g_get_monotonic_time();
    int code;

    begin(s, false, 0);
    s->keep = false;
    s->bytes = 0;
    OK(s->guest->ops->exec(s->guest, &exec, &code, &error));
    check(s->bytes >= 200000000 && s->bytes <= 200000001, "200 MB of output", NULL);
    (void)printf("200 MB of output in %.1f s\n", (double)(g_get_monotonic_time() - t0) / 1e6);
    end(s);
}

static void case_files(Session *s)
{
    static const GuestFile meta = {.uid = 3, .gid = 4, .mode = 04711, .mtime = 1234567890};
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) names = NULL;
    char a[] = "put-XXXXXX", b[] = "get-XXXXXX", type, buf[65536];
    auto_fd int in = mkstemp(a), out = mkstemp(b), random = open("/dev/urandom", O_RDONLY);
    Digest da, db;
    GuestFile got;
    gint64 t0;

    for (int i = 0; i < 800; i++)
        check(read(random, buf, sizeof buf) == sizeof buf && write(in, buf, sizeof buf) == sizeof buf, "fill",
              NULL);
    OK(digest_of_fd(in, &da, &error));
    (void)lseek(in, 0, SEEK_SET);
    begin(s, false, 0);
    OK(s->guest->ops->mkdir(s->guest, "/opt/a/b", &(GuestFile){.mode = 0700, .mtime = 99}, &error));
    t0 = g_get_monotonic_time();
    OK(s->guest->ops->put(s->guest, in, "/opt/a/b/file", &meta, &error));
    (void)printf("put 52 MB in %.2f s\n", (double)(g_get_monotonic_time() - t0) / 1e6);
    t0 = g_get_monotonic_time();
    OK(s->guest->ops->get(s->guest, "/opt/a/b/file", out, 0, &error));
    (void)printf("get 52 MB in %.2f s\n", (double)(g_get_monotonic_time() - t0) / 1e6);
    OK(digest_of_fd(out, &db, &error));
    check(digest_equal(&da, &db), "what was put comes back", NULL);
    OK(s->guest->ops->stat(s->guest, "/opt/a/b/file", &type, &got, &error));
    check(type == 'f' && got.uid == 3 && got.gid == 4 && got.mode == 04711 && got.mtime == 1234567890, "meta",
          NULL);
    OK(s->guest->ops->symlink(s->guest, "b/file", "/opt/a/link", &error));
    OK(s->guest->ops->list(s->guest, "/opt/a", &names, &error));
    check(g_strv_length(names) == 2 && strcmp(names[0], "b") == 0, "list", NULL);
    check(!s->guest->ops->get(s->guest, "/opt/a/link", out, 1000, &error), "get beyond its limit", NULL);
    OK(s->guest->ops->remove(s->guest, "/opt/a", &error));
    OK(s->guest->ops->stat(s->guest, "/opt/a", &type, NULL, &error));
    check(type == 0, "removed", NULL);
    end(s);
    (void)unlink(a);
    (void)unlink(b);
}

static void case_network(Session *s)
{
    begin(s, true, 240);
    expect(s, "cat /etc/resolv.conf; getent hosts deb.debian.org; date -u +%Y-%m-%d; cat /proc/net/route", 0,
           NULL);
    (void)printf("%s", s->out->str);
    expect(s, "apt-get update 2>&1", 0, NULL);
    (void)printf("%s", s->out->str);
    end(s);
    begin(s, false, 0);
    expect(s, "cat /etc/resolv.conf 2>/dev/null", 0, NULL);
    check(!strstr(s->out->str, "169.254"), "resolv.conf stayed as it was", NULL);
    end(s);
}

/* Whatever resolv.conf is, a step with network reads ours through it, and afterwards it is what it was. */
static void case_resolv_conf(Session *s)
{
    static const struct {
        const char *make, *look, *is;
    } kinds[] = {
        {"echo own > /etc/resolv.conf", "cat /etc/resolv.conf", "own\n"},
        {"ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf", "readlink /etc/resolv.conf",
         "../run/systemd/resolve/stub-resolv.conf\n"},
        {"ln -sf /var/lib/here /etc/resolv.conf; echo there > /var/lib/here",
         "cat /var/lib/here; readlink /etc/resolv.conf", "there\n/var/lib/here\n"},
        {"rm /etc/resolv.conf /var/lib/here", "ls /etc/resolv.conf 2>/dev/null || echo none", "none\n"},
    };

    begin(s, false, 0);
    expect(s, "cat /etc/resolv.conf > /root/kept-resolv.conf", 0, NULL);
    end(s);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        begin(s, false, 0);
        expect(s, kinds[i].make, 0, "");
        end(s);
        begin(s, true, 0);
        expect(s, "cat /etc/resolv.conf", 0, "nameserver 169.254.2.3\n");
        end(s);
        begin(s, false, 0);
        expect(s, kinds[i].look, 0, kinds[i].is);
        end(s);
    }
    begin(s, false, 0);
    expect(s, "mv /root/kept-resolv.conf /etc/resolv.conf", 0, "");
    end(s);
}

/* While everything is frozen the disk is copied by the shell, which then checks the copy. */
static bool seal(void *arg, GError **error)
{
    Session *s = arg;
    g_autofree char *command = g_strdup_printf("%s", s->seal_marker);

    return system(command) == 0 || fail(error, "the seal's command failed");
}

/* The shell puts the copy of the last seal back under the guest's feet. */
static bool drop(void *arg, GError **error)
{
    const char *command = g_getenv("DROP_COMMAND");

    return !command || system(command) == 0 || fail(error, "the drop's command failed");
}

static void case_checkpoint(Session *s)
{
    gint64 t0;

    begin(s, false, 0);
    expect(s, "echo kept > /root/kept; dd if=/dev/zero of=/root/big bs=1M count=20 2>/dev/null", 0, "");
    end(s);
    s->seal_marker = g_getenv("SEAL_COMMAND") ? g_getenv("SEAL_COMMAND") : "true";
    t0 = g_get_monotonic_time();
    OK(s->guest->ops->checkpoint(s->guest, seal, s, &error));
    (void)printf("checkpoint %.2f s\n", (double)(g_get_monotonic_time() - t0) / 1e6);
    begin(s, false, 0);
    expect(s, "cat /root/kept", 0, "kept\n");
    end(s);
}

static void case_rollback(Session *s)
{
    gint64 t0;

    case_checkpoint(s);
    begin(s, false, 0);
    expect(s, "rm -r /root/big /root/kept /usr/share/doc; echo new > /root/new; sync", 0, "");
    t0 = g_get_monotonic_time();
    OK(s->guest->ops->rollback(s->guest, drop, s, &error)); /* in the middle of a step */
    (void)printf("rollback %.2f s\n", (double)(g_get_monotonic_time() - t0) / 1e6);
    begin(s, false, 0);
    if (g_getenv("DROP_COMMAND"))
        expect(s,
               "cat /root/kept; test -e /root/new; echo $?; ls /usr/share/doc | wc -l | grep -vx 0 "
               ">/dev/null && cksum </root/big",
               0, "kept\n1\n3128462852 20971520\n");
    expect(s, "rm /root/big /root/kept", 0, "");
    end(s);
}

static void case_hang(Session *s)
{
    const char *argv[] = {"sh", "-c", "echo hanging; sleep 600", NULL};
    GuestExec exec = {.argv = argv};
    g_autoptr(GError) error = NULL;
    int code;

    begin(s, false, 0);
    (void)printf("hanging\n");
    check(!s->guest->ops->exec(s->guest, &exec, &code, &error), "hang", NULL);
    (void)printf("ended: %s\n", error->message);
    s->guest->ops->kill(s->guest);
    exit(g_error_matches(error, KILN_ERROR, KILN_ERROR_INTERRUPTED) ? 130 : 1);
}

static const struct {
    const char *name;
    void (*run)(Session *s);
    bool asked_only;
} cases[] = {
    {"exec", case_exec, false},
    {"overhead", case_overhead, false},
    {"no-trace", case_no_trace, false},
    {"timeout", case_timeout, false},
    {"daemon", case_daemon, false},
    {"files", case_files, false},
    {"output", case_output, false},
    {"network", case_network, true},
    {"resolv-conf", case_resolv_conf, false},
    {"checkpoint", case_checkpoint, false},
    {"rollback", case_rollback, false},
    {"hang", case_hang, true},
};

int main(int argc, char **argv)
{
    Session s = {.out = g_string_new(NULL), .seal_marker = "true"};
    GuestOpenSpec spec = {.nbd_socket = argv[1], .tmpdir = argc > 3 ? argv[3] : NULL, .network = true};
    gint64 t0 = g_get_monotonic_time();
    g_autoptr(GError) error = NULL;

    if (argc < 4)
        return 2;
    interrupt_install();
    log_set_level(LOG_VERBOSE);
    setvbuf(stdout, NULL, _IOLBF, 0);
    spec.inspect = strcmp(argv[2], "inspect") == 0;
    spec.root_offset = spec.inspect ? 0 : g_ascii_strtoull(argv[2], NULL, 10);
    if (!guest_libguestfs_open(&spec, &s.guest, &error)) {
        (void)fprintf(stderr, "%s\n", error->message);
        return error_exit_status(error);
    }
    (void)printf("open %.2f s\n", (double)(g_get_monotonic_time() - t0) / 1e6);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        if (argc > 4 ? g_strv_contains((const char *const *)argv + 4, cases[i].name) : !cases[i].asked_only) {
            (void)printf("# %s\n", cases[i].name);
            cases[i].run(&s);
        }
    OK(s.guest->ops->shutdown(s.guest, &error));
    (void)printf("all good\n");
    return 0;
}
