/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln-runner PORT ROOT
 * kiln-runner --host-test DESCRIPTOR ROOT
 *
 * Started in the appliance, outside the guest, and in the background. Two processes: the inner one is the session, the
 * outer one stays outside the guest's file systems and says BYE when the session has really let go of them, so that the host may
 * unmount. With --host-test a unit test runs the same program on a folder, in the foreground, and neither clock nor
 * network nor file systems of the machine are touched.
 */
#include "provisioner/runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static Wire wire;

static void to_background(void)
{
    int null;

    if (fork() != 0)
        _exit(0);
    (void)setsid();
    (void)chdir("/");
    null = open("/dev/null", O_RDWR);
    if (null >= 0)
        for (int fd = 0; fd < 3; fd++)
            (void)dup2(null, fd);
}

/* When memory runs out the kernel should take the step, not us: then the host still hears what happened. */
static void be_spared(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        (void)!write(fd, "-1000", 5);
        close(fd);
    }
}

static int run_session(const RunnerOptions *options)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0)
        _exit(unshare(CLONE_NEWNS) < 0 ? 1 : session_run(&wire, options));
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return pid < 0 ? 256 : status;
}

static void say_bye(int status)
{
    uint8_t buf[4];
    WireWriter w = {buf, 0, sizeof buf, false};

    wire.request = 0;
    wire_put_number(&w, (uint32_t)status, 4);
    wire_send(&wire, WIRE_BYE, buf, w.size);
}

int main(int argc, char **argv)
{
    RunnerOptions options = {0};
    int status;

    options.host_test = argc == 4 && strcmp(argv[1], "--host-test") == 0;
    if (argc != 3 && !options.host_test) {
        (void)fprintf(stderr, "usage: kiln-runner PORT ROOT\n");
        return 2;
    }
    options.root = argv[argc - 1];
    wire.fd = options.host_test ? atoi(argv[2]) : open(argv[1], O_RDWR | O_CLOEXEC);
    if (wire.fd < 0) {
        (void)fprintf(stderr, "kiln-runner: cannot open %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    if (options.host_test) {
        (void)fcntl(wire.fd, F_SETFD, FD_CLOEXEC);
    } else {
        to_background();
        be_spared();
    }
    status = run_session(&options);
    say_bye(status);
    return status == 0 ? 0 : 1;
}
