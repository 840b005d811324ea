/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that is a folder, for tests of the provisioners. Programs run on the host with the folder as
 * working directory, or in a chroot.
 */
#ifndef KILN_TESTS_FOLDER_GUEST_SUPPORT_H
#define KILN_TESTS_FOLDER_GUEST_SUPPORT_H

#include "provisioner/provisioner.h"

typedef struct FolderGuest {
    Guest guest; /* first */
    char *root;
    bool chroot;
    GString *output;         /* lines of exec and of host->say */
    GPtrArray *ran;          /* the last word of every argv: for sh -c without arguments, the command */
    GString *commands;       /* every argv as a line, its words apart by blanks */
    GPtrArray *env;          /* of the last exec */
    int exec_code;           /* when not -1: nothing is run, this is the exit code */
    const char *exec_errors; /* with exec_code: written to the file that the command names first, as packages'
                                wrapper does */
} FolderGuest;

FolderGuest *folder_guest_new(bool chroot); /* in a fresh folder */
void folder_guest_free(FolderGuest *fg);    /* removes the folder */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FolderGuest, folder_guest_free)

/* A host with cwd and template_dir = @folder, whose say() writes to @fg->output. */
ProvisionerHost folder_guest_host(FolderGuest *fg, const char *folder);

void folder_guest_write(FolderGuest *fg, const char *path, const char *text); /* with parents */
char *folder_guest_read(FolderGuest *fg, const char *path);                   /* NULL when absent */
bool folder_guest_has(FolderGuest *fg, const char *path);                     /* links are not followed */

#endif
