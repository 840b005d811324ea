/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel without its packing. A bzImage unpacks itself in the guest, which takes over a second where the processor is emulated;
 * the host does it once. Offsets are those of the boot protocol (2.08 and later).
 */
#include "baker/appliance-parts.h"

#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "base/scope.h"

#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KERNEL_MAX ((size_t)512 << 20)
#define SETUP_SECTORS_AT 0x1f1
#define MAGIC_AT 0x202 /* "HdrS" */
#define VERSION_AT 0x206
#define PAYLOAD_AT 0x248
#define PAYLOAD_SIZE_AT 0x24c
#define XEN_NOTE_PHYS32_ENTRY 18

static const struct Packing {
    const char *bytes;
    size_t size;
    const char *argv[4];
} packings[] = {
    {"\x1f\x8b", 2, {"gzip", "-dc", NULL}},
    {"\xfd" "7zXZ", 5, {"xz", "-dc", NULL}},
    {"\x28\xb5\x2f\xfd", 4, {"zstd", "-dc", NULL}},
    {"\x02\x21\x4c\x18", 4, {"lz4", "-dc", NULL}},
};

static bool run_tool(const char *const *argv, const void *data, size_t size, const char *out, GError **error)
{
    auto_fd int input = memfd_create("packed", MFD_CLOEXEC);
    auto_fd int output = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ProcessSpec spec = {.argv = argv, .timeout = 120};
    int code = 0;

    if (input < 0 || output < 0)
        return fail_errno(error, "make '%s'", out);
    if (!file_pwrite_full(input, data, size, 0, "a file in memory", error))
        return false;
    spec.stdin_fd = input;
    spec.stdout_fd = output;
    return process_run(&spec, &code, error) && (code == 0 || fail(error, "%s cannot unpack what '%s' is made of", argv[0], out));
}

bool appliance_unpack(const void *data, size_t size, const char *out, bool *ret_known, GError **error)
{
    *ret_known = false;
    for (size_t i = 0; i < G_N_ELEMENTS(packings); i++) {
        const struct Packing *packing = &packings[i];

        if (size < packing->size || memcmp(data, packing->bytes, packing->size) != 0 || !process_have(packing->argv[0]))
            continue;
        *ret_known = true;
        return run_tool(packing->argv, data, size, out, error);
    }
    return true;
}

static guint32 get32(const guint8 *p)
{
    return (guint32)p[0] | (guint32)p[1] << 8 | (guint32)p[2] << 16 | (guint32)p[3] << 24;
}

/* The packed kernel inside a bzImage; false when it is none. */
static bool find_payload(const guint8 *image, size_t size, const guint8 **ret, size_t *ret_size)
{
    size_t sectors, start, length;

    if (size < 1024 || memcmp(image + MAGIC_AT, "HdrS", 4) != 0 || (image[VERSION_AT] | image[VERSION_AT + 1] << 8) < 0x208)
        return false;
    sectors = image[SETUP_SECTORS_AT] ? image[SETUP_SECTORS_AT] : 4;
    start = (sectors + 1) * 512 + get32(image + PAYLOAD_AT);
    length = get32(image + PAYLOAD_SIZE_AT);
    if (length < 4 || start > size || length > size - start)
        return false;
    *ret = image + start;
    *ret_size = length - 4; /* the unpacked size follows, which tools would take for damage */
    return true;
}

static bool has_note(const guint8 *notes, size_t size)
{
    while (size >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        size_t whole;

        memcpy(&note, notes, sizeof note);
        whole = sizeof note + ((size_t)note.n_namesz + 3) / 4 * 4 + ((size_t)note.n_descsz + 3) / 4 * 4;
        if (whole > size)
            return false;
        if (note.n_type == XEN_NOTE_PHYS32_ENTRY && note.n_namesz == 4 && memcmp(notes + sizeof note, "Xen", 4) == 0)
            return true;
        notes += whole;
        size -= whole;
    }
    return false;
}

/* Can qemu start the ELF file by itself? */
static bool is_startable(const guint8 *elf, size_t size)
{
    Elf64_Ehdr head;

    if (size < sizeof head)
        return false;
    memcpy(&head, elf, sizeof head);
    if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_machine != EM_X86_64 ||
        head.e_phentsize != sizeof(Elf64_Phdr) || head.e_phoff > size || head.e_phnum > (size - head.e_phoff) / sizeof(Elf64_Phdr))
        return false;
    for (size_t i = 0; i < head.e_phnum; i++) {
        Elf64_Phdr part;

        memcpy(&part, elf + head.e_phoff + i * sizeof part, sizeof part);
        if (part.p_type == PT_NOTE && part.p_offset <= size && part.p_filesz <= size - part.p_offset &&
            has_note(elf + part.p_offset, part.p_filesz))
            return true;
    }
    return false;
}

bool appliance_kernel(const char *kernel, const char *folder, GError **error)
{
    g_autofree char *out = g_build_filename(folder, "kernel", NULL);
    g_autoptr(GBytes) image = NULL, elf = NULL;
    const guint8 *payload;
    size_t size;
    bool known = false;

    if (!file_load(AT_FDCWD, kernel, KERNEL_MAX, &image, error))
        return false;
    if (find_payload(g_bytes_get_data(image, NULL), g_bytes_get_size(image), &payload, &size) &&
        (!appliance_unpack(payload, size, out, &known, error) || (known && !file_load(AT_FDCWD, out, KERNEL_MAX, &elf, error))))
        return false;
    if (elf && is_startable(g_bytes_get_data(elf, NULL), g_bytes_get_size(elf)))
        return true;
    return file_replace(AT_FDCWD, out, g_bytes_get_data(image, NULL), g_bytes_get_size(image), 0644, FILE_SYNC_NO, error);
}
