/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trial boot and its memory.
 */
#include "base/accel.h"

#include "base/host-kernel.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/log.h"
#include "base/process.h"
#include "base/scope.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define QEMU "qemu-system-x86_64"
#define TRIAL_LIMIT 20.0 /* seconds */
#define MEMORY_FILE "kvm.json"
/* What a kernel says that came all the way to looking for its root. */
#define ARRIVED "VFS: "

static bool kvm_opens(void)
{
    auto_fd int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    return fd >= 0 && ioctl(fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION;
}

static void look_for_arrival(const char *line, bool is_stderr, void *arg)
{
    bool *arrived = arg;

    trace("base.accel", "%s", line);
    *arrived = *arrived || strstr(line, ARRIVED) != NULL;
}

static bool boots(const char *kernel)
{
    bool arrived = false;
    const char *argv[] = {QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "accel=kvm,graphics=off", "-cpu", "max",
                          "-m", "256", "-no-reboot", "-serial", "stdio", "-kernel", kernel, "-append", "console=ttyS0 panic=-1", NULL};
    const ProcessSpec spec = {.argv = argv, .timeout = TRIAL_LIMIT, .on_line = look_for_arrival, .arg = &arrived};
    g_autoptr(GError) ignored = NULL; /* a trial that ends in any other way has failed */
    int code = 0;

    return process_run(&spec, &code, &ignored) && arrived;
}

/* What the verdict holds for: this boot of the host, this kernel, this qemu. */
static json_t *circumstances(const char *kernel)
{
    g_autofree char *boot = NULL, *qemu = g_find_program_in_path(QEMU);
    struct stat st = {0};

    (void)g_file_get_contents("/proc/sys/kernel/random/boot_id", &boot, NULL, NULL);
    if (qemu)
        (void)stat(qemu, &st);
    return json_pack("{s:s, s:s, s:I}", "boot", boot ? g_strchomp(boot) : "", "kernel", kernel, "qemu", (json_int_t)st.st_mtime);
}

static bool recall(const char *folder, const json_t *now, bool *ret)
{
    g_autofree char *path = g_build_filename(folder, MEMORY_FILE, NULL);
    g_autoptr(GBytes) text = NULL;
    g_autoptr(json_t) memory = NULL;

    if (!file_load(AT_FDCWD, path, 4096, &text, NULL) ||
        !json_parse(g_bytes_get_data(text, NULL), g_bytes_get_size(text), 4096, path, &memory, NULL) ||
        !json_equal(json_object_get(memory, "for"), now))
        return false;
    *ret = json_is_true(json_object_get(memory, "works"));
    return true;
}

/* Where it cannot be kept the next process tries again. */
static void remember(const char *folder, json_t *now, bool works)
{
    g_autoptr(json_t) memory = json_pack("{s:O, s:b}", "for", now, "works", works);
    g_autofree char *text = json_canonical(memory), *path = g_build_filename(folder, MEMORY_FILE, NULL);

    if (file_make_dirs(folder, 0755, NULL))
        (void)file_replace(AT_FDCWD, path, text, strlen(text), 0644, FILE_SYNC_NO, NULL);
}

static bool kvm_works(void)
{
    g_autofree char *kernel = NULL, *folder = file_cache_dir();
    g_autoptr(json_t) now = NULL;
    bool works = false;

    if (!host_kernel_find(&kernel, NULL, NULL))
        return false; /* whoever needs a machine will say so */
    now = circumstances(kernel);
    if (recall(folder, now, &works))
        return works;
    works = boots(kernel);
    if (!interrupt_requested())
        remember(folder, now, works);
    return works;
}

static Accel find(void)
{
    const char *chosen = g_getenv("KILN_ACCEL");

    if (g_strcmp0(chosen, "kvm") == 0)
        return ACCEL_KVM;
    if (g_strcmp0(chosen, "tcg") == 0 || !kvm_opens())
        return ACCEL_TCG;
    if (kvm_works())
        return ACCEL_KVM;
    log_verbose("/dev/kvm is there and does not work on this machine: machines are emulated, which is slow");
    return ACCEL_BROKEN;
}

Accel accel_find(void)
{
    static GMutex lock;
    static bool known;
    static Accel verdict;
    AUTO_LOCK(&lock);

    if (!known)
        verdict = find();
    known = true;
    return verdict;
}
