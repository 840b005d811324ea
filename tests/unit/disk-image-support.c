/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/disk-image-support.h"

#include "base/json.h"

#include <string.h>

static void make_map(Store *store, const uint8_t *data, size_t size, MapResult *ret)
{
    g_autoptr(StoreWriter) writer = NULL;
    g_autoptr(MapWriter) map = NULL;
    g_autoptr(GError) error = NULL;

    (void)(store_writer_open(store, BLOCK_PUBLIC, &writer, &error) && map_writer_new(writer, size, NULL, &map, &error) &&
           map_writer_write(map, 0, data, size, &error) && map_writer_finish(map, &error) && store_writer_commit(writer, &error));
    g_assert_no_error(error);
    map_writer_result(map, ret);
}

StoreImage *disk_image_publish(Store *store, const char *name, const uint8_t *data, size_t size)
{
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    g_autoptr(json_t) config = NULL, provenance = json_pack("{s:s}", "host", "here");
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    StoreSet set = {.name = name, .images = images, .provenance = provenance};
    StoreImage *image = store_image_new("disk", name);
    char content[DIGEST_OCI_SIZE];
    MapResult map;

    make_map(store, data, size, &map);
    config = json_pack("{s:s, s:s, s:s, s:I}", "arch", "amd64", "content", digest_to_oci(&map.content, content), "layout", "rendered", "size",
                       (json_int_t)size);
    text = json_canonical(config);
    g_assert_true(store_blob_put(store, text, strlen(text), &image->id, NULL));
    image->map = map.digest;
    image->size = size;
    g_ptr_array_add(images, image);
    (void)store_publish(store, &set, &error);
    g_assert_no_error(error);
    return image;
}

/* cli; ds = 0; si = message; dx = COM1; each byte of it to the port; hlt for ever */
static const uint8_t boot_code[] = {0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x20, 0x7c, 0xba, 0xf8, 0x03, 0xac,
                                    0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8, 0xf4, 0xeb, 0xfd};

StoreImage *disk_image_bootable(Store *store, const char *name, uint8_t version, size_t size)
{
    g_autofree uint8_t *disk = g_malloc0(size);

    memcpy(disk, boot_code, sizeof boot_code);
    memcpy(disk + 0x20, "KILN-BOOTED\r\n", 14);
    disk[510] = 0x55;
    disk[511] = 0xaa;
    for (size_t i = size / 2; i < size / 2 + (256u << 10); i++)
        disk[i] = (uint8_t)(version + i % 251);
    disk[size - 1] = version;
    return disk_image_publish(store, name, disk, size);
}
