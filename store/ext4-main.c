/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kiln-ext4: the program that kiln hands file systems to which others wrote. It gives up all that it may do before it reads the first byte.
 */
#include "base/confine.h"
#include "store/ext4-serve.h"
#include "store/ext4-wire.h"

#include <stdlib.h>

int main(int argc, char **argv)
{
    (void)argc, (void)argv;
    if (!confine_self(EXT4_MEMORY_MAX, EXT4_SECONDS_MAX))
        return 3;
    ext4_serve(0, 1);
    return 0;
}
