/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the libvirt driver, among themselves. Nobody else includes this.
 *
 *   driver-libvirt.c           the driver's calls: hands work to one thread per host and collects what came of it
 *   driver-libvirt-host.c      a host: connection, events, what kind it is
 *   driver-libvirt-storage.c   files on a host: images, seeds, volumes; in a folder of ours or in a storage pool
 *   driver-libvirt-instance.c  creating, looking at and destroying domains, and what stands around them
 *   driver-libvirt-agent.c     the guest's agent
 *
 * All functions that take an LvHost run in that host's own thread (bounded-call.h) and may hang as libvirt does.
 */
#ifndef KILN_DEPLOY_DRIVER_LIBVIRT_H
#define KILN_DEPLOY_DRIVER_LIBVIRT_H

#include "base/error.h"
#include "deploy/bounded-call.h"
#include "deploy/domain-xml.h"
#include "deploy/host-image.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

/* Free functions that take NULL, and with them scope cleanup. */
static inline void lv_free_domain(virDomainPtr *p)
{
    if (*p)
        (void)virDomainFree(*p);
}
static inline void lv_free_pool(virStoragePoolPtr *p)
{
    if (*p)
        (void)virStoragePoolFree(*p);
}
static inline void lv_free_vol(virStorageVolPtr *p)
{
    if (*p)
        (void)virStorageVolFree(*p);
}
static inline void lv_free_stream(virStreamPtr *p)
{
    if (*p)
        (void)virStreamFree(*p);
}
static inline void lv_free_network(virNetworkPtr *p)
{
    if (*p)
        (void)virNetworkFree(*p);
}
static inline void lv_free_text(char **p)
{
    free(*p); /* libvirt's strings are malloc's */
}
#define auto_domain __attribute__((cleanup(lv_free_domain))) virDomainPtr
#define auto_pool __attribute__((cleanup(lv_free_pool))) virStoragePoolPtr
#define auto_vol __attribute__((cleanup(lv_free_vol))) virStorageVolPtr
#define auto_stream __attribute__((cleanup(lv_free_stream))) virStreamPtr
#define auto_network __attribute__((cleanup(lv_free_network))) virNetworkPtr
#define auto_text __attribute__((cleanup(lv_free_text))) char

typedef enum HostKind {
    HOST_LOCAL,  /* its libvirt sees our image folder: files are written there */
    HOST_REMOTE, /* files go through libvirt into a storage pool */
    HOST_TEST,   /* libvirt's test driver: files as on a local host, and nothing that runs from them */
} HostKind;

/* From the driver block; immutable, shared by the hosts' threads. */
typedef struct LvConfig {
    gint refs;
    char *group;
    char *image_dir, *volume_dir, *pool, *machine, *emulator, *cpu, *type /* NULL: automatic */;
    bool console_log;
    bool nwfilter; /* else somebody else filters on this host */
} LvConfig;
LvConfig *lv_config_ref(LvConfig *config);
void lv_config_unref(LvConfig *config);

/* Rung by libvirt's event thread. */
typedef struct LvBell {
    gint refs;
    GMutex lock;
    GCond rung;
    guint64 count, heard;
} LvBell;
LvBell *lv_bell_new(void);
LvBell *lv_bell_ref(LvBell *bell);
void lv_bell_unref(LvBell *bell);
void lv_bell_ring(LvBell *bell);
void lv_bell_wait(LvBell *bell, double seconds); /* returns at once for what rang since the last wait */

typedef struct LvHost {
    char *uri;
    LvConfig *config;
    LvBell *bell;
    virConnectPtr connection; /* NULL: none (any more) */
    int callbacks[3];
    bool kind_known;
    HostKind kind;
    char *type; /* "kvm" or "qemu", once known */
} LvHost;

/* --- driver-libvirt-host.c --- */
void lv_start(void); /* events and silence, once per process */
LvHost *lv_host_new(const char *uri, LvConfig *config, LvBell *bell);
void lv_host_free(LvHost *host);
bool lv_connect(LvHost *host, GError **error); /* again, where it was lost */
bool lv_kind(LvHost *host, HostKind *ret, GError **error);
bool lv_type(LvHost *host, const char *arch, const char **ret, GError **error);
bool lv_uri_is_test(const char *uri);
bool lv_uri_has_server(const char *uri);
/* "cannot WHAT on URI: libvirt's words"; returns false. */
bool lv_fail(LvHost *host, GError **error, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* --- driver-libvirt-storage.c --- */
/* The image's file there, compared and where needed hashed again; *ret is its path. KILN_ERROR_NOT_FOUND: it was never brought. */
bool lv_image_check(LvHost *host, const HostImageWant *want, BoundedCall *call, char **ret_path, GError **error);
/* Brings it to a remote host's pool. */
bool lv_image_upload(LvHost *host, const HostImageWant *want, StoreMap *map, BoundedCall *call, GError **error);
/* Is it there, as far as can be told without reading it? */
bool lv_image_is_there(LvHost *host, const HostImageWant *want);
bool lv_images_forget(LvHost *host, const GArray *keep, GHashTable *used, GError **error);
/* A small file for one instance, beside the images; one that exists is replaced. *ret_path: on the host. */
bool lv_file_put(LvHost *host, const char *name, const void *data, size_t size, char **ret_path, GError **error);
bool lv_file_remove(LvHost *host, const char *name, GError **error); /* absent is fine */
bool lv_volume_make(LvHost *host, const char *volume, uint32_t slot, uint64_t size, char **ret_path, GError **error); /* existing: left */
bool lv_volumes_remove(LvHost *host, GError **error); /* all of the group */
/* What libvirt leaves when it is killed together with a guest. True when there was one. */
bool lv_overlay_remove(LvHost *host, const char *base, const char *name);
/* A local host's overlay, as it is at this moment, in a file without a name. */
bool lv_overlay_copy(LvHost *host, const char *overlay, BoundedCall *call, int *ret_fd, GError **error);
/* Overlays and seeds of the group's instances that are not among the host's domains, @names: best effort. */
void lv_sweep(LvHost *host, GHashTable *names);
/* Bytes free where images go; 0: not known. */
uint64_t lv_room(LvHost *host);

/* --- driver-libvirt-instance.c --- */
typedef struct LvCreate {
    InstanceId id;
    char *address;
    unsigned prefix_length;
    InstanceShape *shape; /* owned */
    HostImageWant want;
    GError *error;
} LvCreate;
void lv_create(LvHost *host, LvCreate *create, BoundedCall *call);
bool lv_observe(LvHost *host, GPtrArray *instances, BoundedCall *call, GError **error);
/* Ends all of @names together; errors[i] for those that stay. */
void lv_destroy(LvHost *host, char *const *names, unsigned count, double grace, GError **errors, BoundedCall *call);
bool lv_attest(LvHost *host, const char *name, const InstanceId *id, const HostImageWant *want, BoundedCall *call, unsigned *ret_flags, GError **error);
/* Its disk as of a paused moment: a copy of the overlay, and the path of its base. Local hosts only; *ret_base stays NULL where nothing runs. */
bool lv_snapshot(LvHost *host, const char *name, BoundedCall *call, int *ret_fd, char **ret_base, GError **error);
/* Files that any domain of the host has open: a set of paths. And names of all domains. */
bool lv_used_files(LvHost *host, GHashTable *ret_files, GHashTable *ret_names, BoundedCall *call, GError **error);
/* Its live view; *ret_domain may be NULL. KILN_ERROR_NOT_FOUND: there is no such domain. */
bool lv_view(LvHost *host, const char *name, virDomainPtr *ret_domain, DomainView **ret, GError **error);

/* --- driver-libvirt-agent.c --- */
bool lv_ping(LvHost *host, const char *name, GError **error);
/* Reads files inside and compares them with @digests (path -> Digest*). *ret_proven: at least one was read. False: one differs. */
bool lv_guest_compare(LvHost *host, const char *name, GHashTable *digests, BoundedCall *call, bool *ret_proven, GError **error);

#endif
