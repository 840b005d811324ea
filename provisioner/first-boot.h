/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the first boot share: the seed on its way into the guest.
 *
 *   first-boot.c         the order of things, files and scripts
 *   first-boot-system.c  names, time zone, locale, ssh
 *   first-boot-users.c   groups, users, passwords, keys
 *   first-boot-packages.c  where packages come from, whom it trusts, and packages
 */
#ifndef KILN_PROVISIONER_FIRST_BOOT_H
#define KILN_PROVISIONER_FIRST_BOOT_H

#include "provisioner/guest-file.h"
#include "provisioner/seed.h"

typedef struct FirstBoot {
    const ProvisionerHost *host;
    Guest *guest;
    Seed *seed;
    json_t *config;   /* the seed's cloud-config over the guest's own /etc/cloud/cloud.cfg */
    GPtrArray *done;  /* char *: for people */
} FirstBoot;

/* A value of the seed alone, or NULL. */
const json_t *first_boot_said(const FirstBoot *boot, const char *key);
bool first_boot_flag(const json_t *value, bool otherwise);

/* /bin/sh -c @script with @args as $1...; an exit status is an error that says what could not be done. */
bool first_boot_sh(const FirstBoot *boot, const char *what, const char *script, const char *const *args, GError **error);

/* The whole file as text; *ret is NULL where it is not. */
bool first_boot_read(const FirstBoot *boot, const char *path, char **ret, GError **error);
bool first_boot_write(const FirstBoot *boot, const char *path, const char *text, uint16_t mode, GError **error);

bool first_boot_names(FirstBoot *boot, GError **error);
bool first_boot_clock_and_language(FirstBoot *boot, GError **error);
bool first_boot_users(FirstBoot *boot, GError **error);
bool first_boot_passwords(FirstBoot *boot, GError **error);
bool first_boot_packages(FirstBoot *boot, GError **error);

#endif
