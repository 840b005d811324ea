/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json of the OCI runtime (runtime-spec 1.0) out of an image's OCI config and what the group says. Pure, but that names of users are
 * looked up in the root file system's etc/passwd and etc/group.
 *
 * The image's config is hostile: types, counts and lengths are checked here, and nothing in it can widen what a container may do.
 */
#ifndef KILN_DEPLOY_RUNC_CONFIG_H
#define KILN_DEPLOY_RUNC_CONFIG_H

#include "base/json.h"
#include "deploy/driver.h"

typedef struct RuncMount {
    const char *source, *destination;
    bool readonly;
} RuncMount;

typedef struct RuncSpec {
    const json_t *image;      /* OCI config of the image */
    int rootfd;               /* its root file system, for names of users */
    const char *name;         /* of the instance: host name */
    const char *cgroup;       /* path of its control group */
    const char *root;         /* path of the mounted overlay */
    const char *address;      /* KILN_ADDRESS; may be NULL */
    const char *netns;        /* path; NULL: the host's network */
    const char *identity;     /* text of the annotation */
    const InstanceShape *shape;
    const RuncMount *mounts;  /* binds: volumes, resolv.conf, hosts */
    unsigned mount_count;
    bool limits;              /* this host's cgroups can hold memory and cpus */
} RuncSpec;

#define RUNC_ANNOTATION "org.kiln.instance"

bool runc_config_make(const RuncSpec *spec, json_t **ret, GError **error);

/* The user that the image's config names. */
typedef struct RuncUser {
    uint32_t uid, gid;
    GArray *groups; /* further ones, of uint32_t */
    char *home;
} RuncUser;
void runc_user_clear(RuncUser *user);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(RuncUser, runc_user_clear)
bool runc_user_find(int rootfd, const char *text, RuncUser *ret, GError **error);

/* Signal that the image wants to be stopped by, "SIGTERM" where it says nothing. */
const char *runc_stop_signal(const json_t *image);

#endif
