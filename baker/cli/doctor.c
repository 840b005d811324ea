/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln doctor: can this machine bake? One line per thing that must be there.
 */
#include "baker/cli/cli.h"

#include "base/accel.h"
#include "base/host-kernel.h"
#include "base/process.h"

#include <stdio.h>
#include <unistd.h>

typedef struct Finding {
    const char *what;
    bool good;
    bool needed;
    const char *advice;
} Finding;

int verb_doctor(CliContext *cli, int argc, char **argv)
{
    const CliOption options[] = {{NULL, CLI_FLAG, NULL}};
    g_autofree char **arguments = NULL;
    g_autoptr(GError) error = NULL;
    const Accel accel = accel_find();
    const Finding findings[] = {
        {"a kernel in /boot for the appliance", host_kernel_find(NULL, NULL, NULL), true, "install linux-image-cloud-amd64; as a user: chmod +r it"},
        {"supermin", process_have("supermin"), true, "install supermin"},
        {"qemu-system-x86_64", process_have("qemu-system-x86_64"), true, "install qemu-system-x86"},
        {"qemu-img", process_have("qemu-img"), true, "install qemu-utils"},
        {"nbdkit", process_have("nbdkit"), true, "install nbdkit"},
        {"mmdebstrap", process_have("mmdebstrap"), true, "install mmdebstrap"},
        {"newuidmap", process_have("newuidmap"), true, "install uidmap"},
        {"grub-mkimage", process_have("grub-mkimage"), true, "install grub-common"},
        {"GRUB for BIOS", access("/usr/lib/grub/i386-pc/boot.img", R_OK) == 0, true, "install grub-pc-bin"},
        {"GRUB for UEFI", access("/usr/lib/grub/x86_64-efi/kernel.img", R_OK) == 0, true, "install grub-efi-amd64-bin"},
        {"cpio", process_have("cpio"), true, "install cpio"},
        {"KVM (without it steps run 4-16 times slower)", accel == ACCEL_KVM, false,
         accel == ACCEL_BROKEN ? "/dev/kvm is there, but no kernel boots with it: machines are emulated" : "enable virtualisation"},
    };
    json_t *list = json_array();
    int bad = 0;

    if (!cli_parse(options, "doctor", argc, argv, 0, 0, &arguments, &error))
        return cli_fail(cli, error);
    for (size_t i = 0; i < G_N_ELEMENTS(findings); i++) {
        const Finding *f = &findings[i];

        bad += f->needed && !f->good;
        json_array_append_new(list, json_pack("{s:s, s:b, s:b}", "what", f->what, "found", f->good, "needed", f->needed));
        if (!cli->json)
            printf("%-7s %s%s%s\n", f->good ? "ok" : f->needed ? "MISSING" : "absent", f->what, f->good ? "" : ": ",
                   f->good ? "" : f->advice);
    }
    if (cli->json)
        (void)cli_print_json(json_pack("{s:o, s:b}", "findings", list, "good", bad == 0));
    else
        json_decref(list);
    return bad ? 1 : 0;
}
