/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same few places for every program, asked in order.
 */
#include "base/libexec.h"

#include "base/error.h"
#include "base/file.h"

#include <unistd.h>

bool libexec_find(const char *name, char **ret_path, GError **error)
{
    static const char *const places[] = {".", "..", "../libexec/kiln", "../lib/kiln"};
    const char *env = g_getenv("KILN_LIBEXEC_DIR");
    g_autofree char *chosen = env ? g_build_filename(env, name, NULL) : NULL;

    if (chosen && access(chosen, R_OK) == 0) {
        *ret_path = g_steal_pointer(&chosen);
        return true;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(places); i++) {
        g_autofree char *path = g_build_filename(file_program_dir(), places[i], name, NULL);

        if (access(path, R_OK) == 0) {
            *ret_path = g_steal_pointer(&path);
            return true;
        }
    }
    return fail(error, "%s, which belongs beside the kiln program, is not there", name);
}
