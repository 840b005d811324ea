/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope cleanup for what GLib's g_autofree and g_autoptr do not cover.
 *
 *     auto_fd int fd = open(...);          closed at scope end, errno kept
 *     auto_dir DIR *dir = opendir(...);
 *     AUTO_LOCK(&s->lock);                 GMutex held to the end of the scope
 *     g_steal_fd(&fd)                      gives the descriptor away (GLib 2.70)
 */
#ifndef KILN_BASE_SCOPE_H
#define KILN_BASE_SCOPE_H

#include <dirent.h>
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <unistd.h>

static inline void scope_close_fd(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        (void)close(*fd); /* the descriptor is gone whatever close says; writers check fsync */
        errno = saved;
    }
}

static inline void scope_close_dir(DIR **dir)
{
    if (*dir)
        (void)closedir(*dir);
}

#define auto_fd __attribute__((cleanup(scope_close_fd)))
#define auto_dir __attribute__((cleanup(scope_close_dir)))
#define AUTO_LOCK(mutex) \
    __attribute__((unused)) g_autoptr(GMutexLocker) G_PASTE(auto_lock_, __LINE__) = g_mutex_locker_new(mutex)

#endif
