/* SPDX-License-Identifier: Apache-2.0 */
/*
 * By programs of util-linux: setpriv where kiln is root, prlimit always.
 */
#include "baker/confine.h"

#include <unistd.h>

void confine_begin(GPtrArray *argv)
{
    static const char *const confined[] = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs",
                                           "--bounding-set=-all", "--inh-caps=-all"};
    static const char *const limited[] = {"prlimit", "--as=8589934592", "--fsize=4294967296", "--cpu=600", "--core=0", "--"};

    for (size_t i = 0; geteuid() == 0 && i < G_N_ELEMENTS(confined); i++)
        g_ptr_array_add(argv, (char *)confined[i]);
    for (size_t i = 0; i < G_N_ELEMENTS(limited); i++)
        g_ptr_array_add(argv, (char *)limited[i]);
}
