/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Foreign programs by programs of util-linux: setpriv where kiln is root, prlimit always. Ourselves by the kernel's own means: another user,
 * no capabilities, limits, and last a filter that leaves of the system calls only those that computing takes.
 */
#include "base/confine.h"

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

void confine_begin(GPtrArray *argv)
{
    static const char *const confined[] = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs",
                                           "--bounding-set=-all", "--inh-caps=-all"};
    static const char *const limited[] = {"prlimit", "--as=8589934592", "--fsize=4294967296", "--cpu=600", "--core=0", "--"};

    for (size_t i = 0; geteuid() == 0 && i < G_N_ELEMENTS(confined); i++)
        g_ptr_array_add(argv, (char *)confined[i]);
    for (size_t i = 0; i < G_N_ELEMENTS(limited); i++)
        g_ptr_array_add(argv, (char *)limited[i]);
}

static bool limit(int resource, uint64_t value)
{
    struct rlimit both = {(rlim_t)value, (rlim_t)value};

    return setrlimit((__rlimit_resource_t)resource, &both) == 0;
}

/* The sanitizers map terabytes of shadow and ask the kernel for much more than the program does. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static bool set_limits(uint64_t memory, unsigned seconds)
{
    return (SANITIZED || limit(RLIMIT_AS, memory)) && limit(RLIMIT_CPU, seconds) && limit(RLIMIT_FSIZE, 0) && limit(RLIMIT_CORE, 0) &&
           limit(RLIMIT_MEMLOCK, 0) && limit(RLIMIT_NPROC, 0);
}

/* Only root has privileges to give away. The capabilities go with the user, the bounding set keeps them from coming back. */
static bool become_nobody(void)
{
    if (geteuid() != 0)
        return true;
    for (unsigned long capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 && errno != EPERM)
            return false;
    return setgroups(0, NULL) == 0 && setresgid(CONFINE_UID, CONFINE_UID, CONFINE_UID) == 0 &&
           setresuid(CONFINE_UID, CONFINE_UID, CONFINE_UID) == 0 && geteuid() == CONFINE_UID;
}

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

#define FIELD(name) ((uint32_t)offsetof(struct seccomp_data, name))
#define ALLOW(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* mmap() and mprotect() may not make anything executable: the third argument of both says it. */
static bool filter_calls(void)
{
    static const struct sock_filter code[] = {
#ifdef OUR_ARCH
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
#endif
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(nr)),
        ALLOW(__NR_read),
        ALLOW(__NR_write),
        ALLOW(__NR_brk),
        ALLOW(__NR_munmap),
        ALLOW(__NR_mremap),
        ALLOW(__NR_madvise),
        ALLOW(__NR_futex),
        ALLOW(__NR_exit_group),
        ALLOW(__NR_rt_sigreturn),
        ALLOW(__NR_rt_sigprocmask), /* abort() asks for these three: it may end with its own signal */
        ALLOW(__NR_getpid),
        ALLOW(__NR_gettid),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mmap, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mprotect, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {(unsigned short)G_N_ELEMENTS(code), (struct sock_filter *)code};

    return SANITIZED || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

bool confine_self(uint64_t memory, unsigned seconds)
{
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && become_nobody() && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           set_limits(memory, seconds) && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && filter_calls();
}
