/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a boot block to boot_run().
 */
#include "baker/boot-test.h"

#include "baker/boot.h"
#include "base/error.h"
#include "base/log.h"
#include "base/scope.h"
#include "base/units.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TIMEOUT_DEFAULT 300
#define CONSOLE_DEFAULT "login:"

/* A port of the loopback address that nobody has now. Somebody could take it before qemu does: qemu's error says so then. */
static bool free_port(unsigned *ret, GError **error)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    auto_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        return fail_errno(error, "find a free port");
    *ret = ntohs(address.sin_port);
    return true;
}

static const char *text_of(const json_t *spec, const char *name, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(spec, name));

    return text ? text : otherwise;
}

static bool run(Store *store, const StoreImage *disk, const json_t *spec, BootResult *result, GError **error)
{
    const char *http = text_of(spec, "http", NULL), *timeout = text_of(spec, "timeout", NULL), *memory = text_of(spec, "memory", NULL);
    json_int_t guest_port = json_object_get(spec, "port") ? json_integer_value(json_object_get(spec, "port")) : 80;
    g_autofree char *url = NULL, *forward = NULL;
    const char *forwards[] = {NULL, NULL};
    BootOptions options = {.timeout = TIMEOUT_DEFAULT, .input_fd = -1, .uefi = strcmp(text_of(spec, "firmware", "bios"), "uefi") == 0};
    unsigned port = 0;

    if (timeout && !units_parse_duration(timeout, &options.timeout, error))
        return false;
    if (memory && !units_parse_size(memory, &options.memory, error))
        return false;
    if (http) {
        if (!free_port(&port, error))
            return false;
        url = g_strdup_printf("http://127.0.0.1:%u%s%s", port, *http == '/' ? "" : "/", http);
        forward = g_strdup_printf("%u:%d", port, (int)guest_port);
        forwards[0] = forward;
        options.forwards = forwards;
        options.check = url;
    } else {
        options.until = text_of(spec, "console", CONSOLE_DEFAULT);
    }
    return boot_run(store, disk, &options, result, error);
}

bool boot_test(Store *store, const StoreImage *disk, const json_t *spec, const char *title, GError **error)
{
    g_auto(BootResult) result = {0};
    g_autofree char *took = NULL;

    log_info("==> %s: boot test", title);
    if (!run(store, disk, spec, &result, error)) {
        if (result.console_tail && *result.console_tail)
            log_warning("the console's last lines:\n%s", result.console_tail);
        return fail_prefix(error, "boot test failed");
    }
    took = units_format_duration(result.seconds);
    log_info("    boot test passed in %s", took);
    return true;
}

const char *boot_test_critical(const json_t *packages)
{
    static const char *const starts[] = {"linux-image", "linux-modules", "kernel", "initramfs", "grub", "shim", "systemd-boot", "dracut",
                                         "libc6", "glibc", "musl", "udev", "libsystemd", "kmod", "klibc"};
    static const char *const names[] = {"systemd", "systemd-sysv", "sysvinit-core", "init", "openrc", "busybox", "busybox-initramfs",
                                        "live-boot", "cryptsetup-initramfs", "lvm2", "mdadm", "extlinux", "syslinux", NULL};
    const json_t *one;
    size_t i;

    json_array_foreach (packages, i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));

        if (g_strv_contains(names, name))
            return name;
        for (size_t j = 0; j < G_N_ELEMENTS(starts); j++)
            if (g_str_has_prefix(name, starts[j]))
                return name;
    }
    return NULL;
}
