/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Port: where instances live. A driver can bring an image to its hosts, create instances, look at them and destroy them. There is
 * no call that changes one that runs, and none may be added.
 *
 *   open -> prepare (image) -> create / observe / attest / destroy ... -> close
 *
 * A driver opens one group on one or several hosts. It keeps no state of its own between processes: what observe() tells comes
 * from the hosts, where every instance carries its identity as metadata (InstanceId: group, revision, slot, attempt, image, epoch).
 * A host that does not answer is no error of a call but is told as such; calls about instances there fail, within a bounded time
 * (DRIVER_TIMEOUT), and say so. Calls come from one thread.
 *
 * Members: driver-libvirt.c, driver-runc.c, driver-fake.c (no VM, no network; ships). Table: driver-table.c. The promises of
 * this file are tested over the table by tests/unit/conform-driver.c.
 */
#ifndef KILN_DEPLOY_DRIVER_H
#define KILN_DEPLOY_DRIVER_H

#include "deploy/transition.h"
#include "store/store.h"

enum { DRIVER_TIMEOUT = 15 /* seconds a silent host may hold up a call */ };

/* Identity: derived, never drawn. The name is "GROUP-rREVISION-SLOT-aATTEMPT", the UUID is UUIDv5 of it. */
typedef struct InstanceId {
    char group[49];
    uint32_t revision, slot, attempt;
    Digest image;
    int64_t epoch; /* of the controller that created it */
} InstanceId;
void instance_name(const InstanceId *id, char ret[96]);
void instance_uuid(const InstanceId *id, char ret[37]);
bool instance_name_parse(const char *name, InstanceId *ret); /* all but image and epoch */
json_t *instance_id_json(const InstanceId *id);
bool instance_id_parse(const json_t *json, InstanceId *ret); /* hostile: written by whoever can edit the host */

/* What the group file says about instances; borrowed from GroupSpec. Sizes in bytes. */
typedef struct VolumeSpec {
    char *name, *mount;
    uint64_t size;
} VolumeSpec;

typedef struct InstanceShape {
    uint64_t memory;
    unsigned cpus;
    char *user_data;      /* NoCloud, or NULL */
    char **environment;   /* "K=V", containers; may be NULL */
    char *bridge, *libvirt_network; /* at most one; both NULL: the driver's default */
    char **addresses;     /* as written: "10.0.0.10", "10.0.0.10-10.0.0.20", each with an optional "/24"; NULL: DHCP or the driver's own */
    char *gateway;        /* may be NULL */
    unsigned port;        /* that health and balancer talk to; 0: none */
    bool agent;           /* health asks the guest agent */
    GPtrArray *volumes;   /* of VolumeSpec* */
    char **allow;         /* firewall: "tcp/80", "icmp"; NULL: no firewall */
} InstanceShape;

typedef struct DriverConfig {
    Store *store;
    const char *group;
    const json_t *arguments;  /* of the driver block, checked by .check */
    const InstanceShape *shape; /* of the revision in question; later calls may carry another one */
} DriverConfig;

typedef struct DriverCreate {
    InstanceId id;
    int host;
    const char *address;       /* from the list, without prefix length; NULL: the driver's or DHCP */
    unsigned prefix_length;
    const InstanceShape *shape;
} DriverCreate;

/* How well it is proven that an instance runs its image; each is one word in `status`. */
typedef enum ProofFlags {
    PROVEN_METADATA = 1 << 0, /* identity on the host says so */
    PROVEN_CHAIN = 1 << 1,    /* the hypervisor or runtime reports the file or root it runs from, and it is the image's, read-only */
    PROVEN_DIGEST = 1 << 2,   /* the bytes there were hashed and are the image's (and were not touched since: device, inode, size, mtime, ctime) */
    PROVEN_GUEST = 1 << 3,    /* files read inside the guest are the image's */
} ProofFlags;

typedef struct DriverInstance {
    InstanceId id;
    char *name;      /* as on the host */
    int host;
    Life life;       /* STARTING, RUNNING or DEAD */
    char *address;   /* NULL: not known (yet) */
    int64_t started; /* seconds since 1970, 0: not known */
    bool known;      /* false: it carries the group's mark but no identity we can read, or one that does not fit its name */
    char *drift;     /* one sentence: what differs from what was created (definition, metadata, backing file), seen without cost; NULL: nothing */
} DriverInstance;
void driver_instance_free(DriverInstance *instance);

/* What has changed on an instance's disk since it was created. */
typedef struct DriftEntry {
    char *path; /* or "(partition 15, 3 blocks)" and the like: deploy/overlay.h */
    char *what; /* "changed", "added", "removed", "mode changed", "unreadable" ... */
} DriftEntry;
void drift_entry_free(DriftEntry *entry);

typedef struct DriverNeeds { /* of one host, for plans */
    uint64_t bytes_to_move;  /* image bytes not there yet */
    uint64_t disk, disk_free, memory, memory_free; /* peak of the plan's instances; free: 0 not known */
} DriverNeeds;

typedef struct Driver Driver; /* a member's own struct begins with it */

typedef struct DriverOps {
    const char *name;
    const char *kind; /* of images it runs: "disk" or "oci" */

    /* The driver block's arguments (JSON) and the shape: false with one sentence; *ret_argument names the culprit, "hosts" or NULL. */
    bool (*check)(const json_t *arguments, const InstanceShape *shape, const char **ret_argument, GError **error);

    bool (*open)(const DriverConfig *config, Driver **ret, GError **error);
    void (*close)(Driver *driver); /* also after a failed open; instances live on */

    unsigned (*host_count)(Driver *driver);
    const char *(*host_name)(Driver *driver, unsigned host);

    /* Bytes and room on each host for @count instances of @image there; DriverNeeds[host_count]. */
    bool (*needs)(Driver *driver, const StoreImage *image, const InstanceShape *shape, const unsigned *counts, DriverNeeds *ret, GError **error);

    /* Brings @image to every host that answers, hashed on the way, or checks what is there. Idempotent; shows progress. */
    bool (*prepare)(Driver *driver, const StoreImage *image, GError **error);
    /* Removes images of hosts that none of @keep names (array of Digest) and no instance runs from. */
    bool (*forget)(Driver *driver, const GArray *keep, GError **error);

    /*
     * Creates in a batch. An instance that exists with this identity is success (and is left as it is). Before each create the image's file on
     * its host is compared again. errors[i] is set for those that failed; true when the call as such worked.
     */
    bool (*create)(Driver *driver, const DriverCreate *creates, unsigned count, GError **errors /* [count], NULL-filled */, GError **error);

    /* All instances that carry the group's mark, on all hosts; answers[host]: whether it answered. */
    bool (*observe)(Driver *driver, GPtrArray **ret /* of DriverInstance* */, bool *answers /* [host_count] */, GError **error);

    /* *ret_flags: what is proven. What is disproven is false with the sentence. @shape says whether an agent may be asked. */
    bool (*attest)(Driver *driver, const DriverInstance *instance, const StoreImage *image, const InstanceShape *shape, unsigned *ret_flags, GError **error);

    /* Guest agent's answer; absent (NULL): there is no agent. */
    bool (*ping)(Driver *driver, const DriverInstance *instance, GError **error);

    /* Ends and removes, politely within @grace seconds where that works, else hard. Absent is success. Volumes stay. */
    bool (*destroy)(Driver *driver, const DriverInstance *const *instances, unsigned count, double grace, GError **errors, GError **error);

    /* Volumes of the group that exist, and their end (`destroy --volumes`). Absent (NULL): the driver has no volumes, check refuses them. */
    bool (*destroy_volumes)(Driver *driver, GError **error);

    /* Absent (NULL): disks can't be looked into. Array of DriftEntry*, unfiltered. Only for hosts whose files kiln can read; else an error that says so. */
    bool (*changed_files)(Driver *driver, const DriverInstance *instance, const StoreImage *image, GPtrArray **ret, GError **error);

    /* Waits at most @seconds for something to happen to an instance (events); absent (NULL): the caller sleeps. */
    void (*wait)(Driver *driver, double seconds);

    /* Which firewall `plan` shall announce for this group: "nft set on this host", "nwfilter", NULL none. */
    const char *(*firewall)(Driver *driver, const InstanceShape *shape);
} DriverOps;

struct Driver {
    const DriverOps *ops;
};

/* driver-table.c. NULL: no such driver; @ret_names then lists those there are. */
const DriverOps *driver_find(const char *name, char **ret_names);

#endif
