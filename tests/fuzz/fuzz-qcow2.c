/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzer: a qcow2 that somebody gives us: its header as an image, its header and tables as an overlay. The ranges of an overlay
 * must ascend, lie inside the disk, and not ask for more than the file has.
 */
#include "tests/fuzz/fuzz-store.h"

#include "store/qcow2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Walk {
    uint64_t end, size, file_size, bytes;
} Walk;

static bool check_range(uint64_t at, uint64_t size, uint64_t host, void *arg, GError **error)
{
    Walk *walk = arg;

    if (size == 0 || at < walk->end || at > walk->size || size > walk->size - at)
        abort();
    walk->end = at + size;
    if (host == QCOW2_ZERO)
        return true;
    walk->bytes += size;
    if (walk->bytes > walk->file_size + (2u << 20)) /* a cluster may end behind the file */
        abort();
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = fuzz_memory_file(data, size);
    g_auto(Qcow2Overlay) overlay = {.fd = -1};
    uint64_t virtual_size;

    (void)qcow2_check_header(fd, "fuzz", &virtual_size, NULL);
    if (qcow2_overlay_header(fd, "fuzz", &overlay, NULL)) {
        Walk walk = {.size = overlay.size, .file_size = overlay.file_size};

        (void)qcow2_overlay_each(&overlay, check_range, &walk, NULL);
    }
    (void)close(fd);
    return 0;
}
