/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln boot: boots a throw-away overlay of a disk and shows its console.
 *
 * With --check the console is a log: plain text on stderr, so that stdout has
 * the result alone. Without, it is the user's: keys go to the guest, Ctrl-C ends it, or the text of --until.
 */
#include "baker/boot.h"
#include "baker/cli/cli.h"
#include "baker/console-text.h"
#include "base/file.h"
#include "base/units.h"

#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define USAGE                                                                                                \
    "boot REF [--forward HOSTPORT:GUESTPORT]... [--check URL [--timeout T] [--show-body]] [--memory SIZE] "  \
    "[--cpus N] [--network] [--until TEXT [--timeout T]] [--firmware bios|uefi] [--disk-size SIZE]"

typedef struct BootCall {
    BootOptions options;
    const char *memory, *cpus, *timeout, *firmware, *disk_size;
    bool show_body;
    int out;           /* where the console goes */
    ConsoleText *text; /* NULL: bytes pass as they are */
} BootCall;

static void show_console(const char *data, size_t size, void *arg)
{
    BootCall *call = arg;
    g_autoptr(GString) plain = g_string_new(NULL);

    if (call->text) {
        console_text_feed(call->text, data, size, plain);
        data = plain->str;
        size = plain->len;
    }
    /* A reader that went away does not stop the machine. */
    (void)file_write_full(call->out, data, size, "the console", NULL);
}

/* Keys reach the guest one by one and are echoed by it; Ctrl-C stays ours. */
static bool take_terminal(struct termios *ret_before)
{
    struct termios raw;

    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, ret_before) < 0)
        return false;
    raw = *ret_before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_iflag &= ~(tcflag_t)(ICRNL | IXON);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    return tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

static bool parse_numbers(BootCall *call, GError **error)
{
    guint64 cpus = 0;

    if (call->memory && !units_parse_size(call->memory, &call->options.memory, error))
        return fail_prefix(error, "--memory");
    if (call->timeout && !units_parse_duration(call->timeout, &call->options.timeout, error))
        return fail_prefix(error, "--timeout");
    if (call->cpus && !g_ascii_string_to_unsigned(call->cpus, 10, 1, 64, &cpus, NULL))
        return fail_code(error, KILN_ERROR_USAGE, "--cpus wants a number from 1 to 64, not '%s'", call->cpus);
    if (call->disk_size && !units_parse_size(call->disk_size, &call->options.disk_size, error))
        return fail_prefix(error, "--disk-size");
    if (call->firmware && strcmp(call->firmware, "bios") != 0 && strcmp(call->firmware, "uefi") != 0)
        return fail_code(error, KILN_ERROR_USAGE, "--firmware is bios or uefi, not '%s'", call->firmware);
    call->options.uefi = g_strcmp0(call->firmware, "uefi") == 0;
    call->options.cpus = (unsigned)cpus;
    if (call->options.check && call->options.until)
        return fail_code(error, KILN_ERROR_USAGE, "--check and --until are two ways to end; give one");
    if (call->options.check && !g_str_has_prefix(call->options.check, "http://") &&
        !g_str_has_prefix(call->options.check, "https://"))
        return fail_code(error, KILN_ERROR_USAGE, "--check wants an http or https URL, not '%s'",
                         call->options.check);
    return true;
}

static void print_text(const BootCall *call, const BootResult *result)
{
    if (!result->checked || !call->options.check)
        return;
    printf("check: %s answered %d after %.1fs\n", call->options.check, result->status, result->seconds);
    if (call->show_body && result->body) {
        gsize size;
        const void *data = g_bytes_get_data(result->body, &size);

        (void)fwrite(data, 1, size, stdout);
    }
    (void)fflush(stdout);
}

static int print_json(const BootCall *call, const StoreImage *image, const BootResult *result)
{
    json_t *document = json_pack("{s:o, s:f, s:b}", "image", cli_image_json(image), "seconds",
                                 result->seconds, "kvm", result->accelerated);

    if (result->checked && call->options.check)
        json_object_set_new(document, "check",
                            json_pack("{s:s, s:i}", "url", call->options.check, "status", result->status));
    if (call->show_body && result->body) {
        gsize size;
        const char *data = g_bytes_get_data(result->body, &size);

        /* Not every body is text. */
        json_object_set_new(document, "body",
                            g_utf8_validate(data, (gssize)size, NULL) ? json_stringn(data, size)
                                                                      : json_null());
    }
    return cli_print_json(document);
}

static void place_console(CliContext *cli, BootCall *call)
{
    bool ours = call->options.check || cli->json;

    call->out = ours ? STDERR_FILENO : STDOUT_FILENO;
    call->options.input_fd = ours ? -1 : STDIN_FILENO;
    if (ours || !isatty(call->out))
        call->text = console_text_new();
    if (!ours || log_level() > LOG_QUIET) {
        call->options.on_console = show_console;
        call->options.arg = call;
    }
}

static bool boot(CliContext *cli, const char *ref, BootCall *call, StoreImage **ret_image, BootResult *ret,
                 GError **error)
{
    g_autoptr(Store) store = NULL;
    g_autoptr(StoreImage) image = NULL;
    struct termios before;
    bool taken = false, ok;

    if (!cli_open_store(cli, 0, &store, error) || !store_resolve(store, ref, "disk", &image, error))
        return false;
    if (call->options.input_fd >= 0) {
        taken = take_terminal(&before);
        log_info("==> booting %s; Ctrl-C ends the machine, and nothing it writes is kept", ref);
    }
    ok = boot_run(store, image, &call->options, ret, error);
    if (taken)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
    *ret_image = g_steal_pointer(&image);
    return ok;
}

int verb_boot(CliContext *cli, int argc, char **argv)
{
    g_autoptr(GPtrArray) forwards = g_ptr_array_new(); /* of argv's own strings */
    g_autofree char **arguments = NULL;
    g_autoptr(StoreImage) image = NULL;
    g_auto(BootResult) result = {0};
    g_autoptr(GError) error = NULL;
    BootCall call = {0};
    const CliOption options[] = {
        {"forward", CLI_LIST, forwards},          {"check", CLI_STRING, &call.options.check},
        {"timeout", CLI_STRING, &call.timeout},   {"memory", CLI_STRING, &call.memory},
        {"cpus", CLI_STRING, &call.cpus},         {"network", CLI_FLAG, &call.options.network},
        {"until", CLI_STRING, &call.options.until},
        {"firmware", CLI_STRING, &call.firmware}, {"disk-size", CLI_STRING, &call.disk_size},
        {"show-body", CLI_FLAG, &call.show_body}, {NULL, CLI_FLAG, NULL}};
    bool ok;

    if (!cli_parse(options, USAGE, argc, argv, 1, 1, &arguments, &error) || !parse_numbers(&call, &error))
        return cli_fail(cli, error);
    call.options.forwards = cli_strings(forwards);
    place_console(cli, &call);
    ok = boot(cli, arguments[0], &call, &image, &result, &error);
    g_clear_pointer(&call.text, console_text_free);

    if (!ok) {
        if (!call.options.on_console && result.console_tail && *result.console_tail)
            log_warning("the console's last lines:\n%s", result.console_tail);
        return cli_fail(cli, error);
    }
    if (cli->json)
        return print_json(&call, image, &result);
    print_text(&call, &result);
    return 0;
}
