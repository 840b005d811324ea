/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libvirt's XML, as text only: what we ask for, and what a host says that it has. No libvirt here, so that tests and fuzzers
 * can have it alone.
 *
 * A domain of ours is transient, has its identity and what it was made of in its metadata, and runs its disk as
 * `<transient shareBacking='yes'/>`: libvirt makes BASE.TRANSIENT-NAME, a throw-away overlay, and removes it with the domain. The base is
 * never relabelled (libvirt's DAC driver would give it to the user that guests run as). A reboot or a crash ends the domain: the overlay
 * outlives a guest's reboot, and an instance must not come back with a disk that somebody wrote.
 *
 * What is read comes from whoever can edit the host: at most DOMAIN_XML_MAX bytes, DOMAIN_DISKS_MAX disks and DOMAIN_CHAIN_MAX files of a chain.
 */
#ifndef KILN_DEPLOY_DOMAIN_XML_H
#define KILN_DEPLOY_DOMAIN_XML_H

#include "deploy/driver.h"

#define DOMAIN_XML_MAX (1u << 20)
#define DOMAIN_METADATA_MAX (64u << 10)
#define DOMAIN_NAMESPACE "urn:kiln:instance:1"
#define DOMAIN_PREFIX "kiln"
enum { DOMAIN_DISKS_MAX = 40, DOMAIN_CHAIN_MAX = 8 };

typedef struct DomainVolume {
    char *path, *serial;
} DomainVolume;

/* What a domain is made of. Everything is text that fits XML (domain_text_is_fit), checked before. */
typedef struct DomainSpec {
    InstanceId id;
    bool test;               /* of libvirt's test driver: only what that knows */
    const char *type;        /* "kvm" or "qemu" */
    const char *arch;        /* "x86_64", or NULL: the host's */
    const char *machine, *emulator, *cpu; /* NULL: libvirt's choice */
    uint64_t memory;
    unsigned cpus;
    const char *base;        /* the image's file on the host */
    const char *seed;        /* ISO for NoCloud, or NULL */
    const GPtrArray *volumes; /* of DomainVolume*, or NULL */
    const char *bridge, *network; /* both NULL: user-mode network */
    const char *address;     /* as planned, or NULL */
    unsigned port;           /* user-mode network: forwarded from address:port; 0: nothing */
    const char *filter;      /* nwfilter, or NULL */
    const char *console_log; /* file that keeps the serial console's output, or NULL */
    bool agent;
    int64_t created;         /* seconds since 1970 */
} DomainSpec;

/* The domain's XML with its metadata in it. */
char *domain_xml(const DomainSpec *spec);
/* The network card's address, derived from the instance's name: "52:54:..". */
void domain_mac(const InstanceId *id, char ret[18]);

typedef struct DomainDisk {
    char *device;   /* "disk", "cdrom" */
    char *target;   /* "vda" */
    char *format;   /* of the uppermost file */
    char *base_format; /* of the lowest one */
    bool transient, read_only;
    char *files[DOMAIN_CHAIN_MAX]; /* uppermost first; NULL where a layer is no file */
    unsigned depth; /* of the chain; one more than DOMAIN_CHAIN_MAX: deeper than that */
} DomainDisk;

typedef struct DomainView {
    char *name, *uuid;
    char *metadata;        /* the text of our element, NULL: none */
    uint64_t memory;       /* bytes */
    unsigned cpus;
    char *on_reboot, *on_crash;
    char *mac, *network_source, *filter; /* of the first interface; user-mode network of ours: the forward's text in network_source */
    unsigned interfaces;
    bool agent_connected;
    unsigned disk_count;
    DomainDisk disks[DOMAIN_DISKS_MAX];
} DomainView;
void domain_view_free(DomainView *view);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DomainView, domain_view_free)

/* Hostile text to a view; false when it is too large, no XML or no domain. */
bool domain_view_parse(const char *xml, DomainView **ret, GError **error);

/* What the metadata's text says. @ret_made is the object of the definition's values, for domain_drift. */
typedef struct DomainMark {
    InstanceId id;
    int64_t created;
    char *address;  /* may be NULL */
    json_t *made;
} DomainMark;
void domain_mark_clear(DomainMark *mark);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(DomainMark, domain_mark_clear)
bool domain_mark_parse(const char *metadata, DomainMark *ret);
/* Digest of everything in the mark but "sum", where it stands: so an edit of one number is seen, by whoever did not mean to hide it. */
void domain_mark_sum(const json_t *mark, char ret[DIGEST_HEX_SIZE]);

/* One sentence that tells what of a running domain differs from what it was made of, or NULL. */
char *domain_drift(const DomainView *view, const DomainMark *mark);

/* The instance's own disk (vda): NULL with a sentence unless it is a throw-away overlay directly on a raw base. */
const char *domain_base_file(const DomainView *view, GError **error);

/* A network's reservation, and a volume and a filter as they are asked for. */
char *domain_reservation_xml(const InstanceId *id, const char *address);
char *domain_volume_xml(const char *name, uint64_t capacity, unsigned mode);
char *domain_pool_xml(const char *name, const char *folder);
/* @allow as in InstanceShape. *ret_name: derived from its rules, so that a filter in use is never changed. False: a rule that is none. */
bool domain_filter_xml(const char *group, char *const *allow, char **ret_name, char **ret_xml, GError **error);

/* Does a host's capabilities' XML offer @type for full virtualisation of @arch (NULL: any)? */
bool domain_capabilities_offer(const char *xml, const char *arch, const char *type);

/* A volume's XML: what its file looks like. */
typedef struct DomainVolumeStamp {
    uint64_t capacity, allocation;
    char path[512];
    char mtime[32], ctime[32]; /* as libvirt writes them: seconds.nanoseconds */
} DomainVolumeStamp;
bool domain_volume_stamp_parse(const char *xml, DomainVolumeStamp *ret);
json_t *domain_volume_stamp_json(const DomainVolumeStamp *stamp);

/* Printable, no control bytes, valid UTF-8, at most 1024 bytes. */
bool domain_text_is_fit(const char *text);

#endif
